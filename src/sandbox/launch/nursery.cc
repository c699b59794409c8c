// How it works: clone3 straight into the sandbox's version 2 cgroup with all namespaces new but the user's,
// which the child makes itself when it is done being root. Version 1 cgroups are joined by the child through
// open files.
#include "sandbox/launch/nursery.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "sandbox/launch/filter.h"
#include "sandbox/launch/first_process.h"
#include "sandbox/launch/kernel.h"

namespace capstan::sandbox {
namespace {
constexpr std::uint32_t kUids = 65'536;
constexpr int kLandlockScopes = 6;
}  // namespace

Fault Nursery::start(std::uint32_t uid_base, int landlock_abi, const std::string& library) {
  uid_base_ = uid_base;
  landlock_abi_ = landlock_abi;
  uids_.assign(kUids, false);
  for (const Network network : {Network::kNone, Network::kNamespace}) {
    filters_[static_cast<std::size_t>(network)] = compile_filter(network);
  }
  zygotes_.start(library, roots_.host_mounts(), roots_.default_mounts(), filters_[0], filters_[1],
                 landlock_abi);
  return nullptr;
}

std::uint32_t Nursery::take_uid() {
  for (std::uint32_t tried = 0; tried < kUids; ++tried) {
    const std::uint32_t slot = uid_next_++ % kUids;
    if (uids_[slot]) continue;
    uids_[slot] = true;
    return uid_base_ + slot;
  }
  return 0;
}

void Nursery::release_uid(std::uint32_t host_uid) { uids_[host_uid - uid_base_] = false; }

Fault Nursery::take(const Kind& kind, Newborn& newborn) {
  Ready& ready = kinds_[kind];
  if (ready.newborns.empty()) return make(kind, newborn);
  newborn = std::move(ready.newborns.front());
  ready.newborns.pop_front();
  return nullptr;
}

void Nursery::keep_like_default(const Kind& kind) {
  if (kinds_.contains(kind) || kinds_.size() >= 2 * kTemplatesReadyMax) return;
  keep(kind, kinds_[Kind{.network = kind.network}].target);
}

bool Nursery::refill() {
  for (auto& [kind, ready] : kinds_) {
    if (ready.newborns.size() >= ready.target) continue;
    Newborn newborn;
    if (make(kind, newborn) != nullptr) {
      ready.target = 0;  // who asks for one gets the error
      continue;
    }
    ready.newborns.push_back(std::move(newborn));
    return true;
  }
  return false;
}

std::vector<Newborn> Nursery::take_all() {
  std::vector<Newborn> all;
  for (auto& [kind, ready] : kinds_) {
    for (auto& newborn : ready.newborns) all.push_back(std::move(newborn));
    ready.newborns.clear();
    ready.target = 0;
  }
  return all;
}

Fault Nursery::make(const Kind& kind, Newborn& newborn) {
  const auto undo = [&](Fault fault) {
    const int error = errno;
    if (!newborn.group.empty()) groups_.give_back(newborn.group, false);
    if (newborn.host_uid != 0) release_uid(newborn.host_uid);
    errno = error;
    return fault;
  };
  if (!groups_.take(newborn.group)) {
    newborn.group.clear();
    return undo("make a cgroup");
  }
  newborn.host_uid = take_uid();
  if (newborn.host_uid == 0) return undo("find an unused user id");
  std::vector<Fd> procs;
  const Fd unified = groups_.open_unified(newborn.group);
  if (!unified || !groups_.open_procs(newborn.group, false, procs)) return undo("open a cgroup");
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return undo("make a socket");
  newborn.socket.reset(pair[0]);
  ::fcntl(pair[0], F_SETFL, O_NONBLOCK);
  Fd inner(pair[1]);
  std::vector<int> numbers;
  for (const auto& file : procs) numbers.push_back(file.get());
  if (const Fault fault = give_birth(kind, newborn, inner.get(), unified.get(), std::move(numbers)))
    return undo(fault);
  return nullptr;
}

Fault Nursery::give_birth(const Kind& kind, Newborn& newborn, int socket, int cgroup,
                          std::vector<int> procs) {
  std::uint64_t namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
  // Without Landlock's scopes (ABI 6) only a network namespace keeps the host's abstract sockets away.
  if (kind.network == Network::kNamespace || landlock_abi_ < kLandlockScopes) namespaces |= CLONE_NEWNET;
  if (kind.python) {
    const Zygotes::Birth birth{kind.network, namespaces, newborn.host_uid, socket, cgroup, std::move(procs)};
    return zygotes_.make(kind.tenant, birth, newborn.pid, newborn.pidfd);
  }
  if (const Fault fault = roots_.enter(kind.template_root)) return fault;
  int pidfd = -1;
  newborn.pid = kernel::clone3(namespaces, cgroup, &pidfd);
  if (newborn.pid == 0) {
    become_first_process({.socket = socket,
                          .cgroups = std::move(procs),
                          .filter = filters_[static_cast<std::size_t>(kind.network)],
                          .network = kind.network,
                          .host_uid = newborn.host_uid,
                          .landlock_abi = landlock_abi_});
  }
  const int error = errno;
  newborn.pidfd.reset(newborn.pid > 0 ? pidfd : -1);
  const Fault back = roots_.enter("");
  if (newborn.pid > 0) return back;
  errno = error;
  return "make a process in its namespaces";
}

}  // namespace capstan::sandbox

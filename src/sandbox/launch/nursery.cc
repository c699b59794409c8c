// How it works: clone3 straight into the sandbox's version 2 cgroup with all namespaces new but the user's,
// which the child makes itself when it is done being root. Version 1 cgroups are joined by the child through
// open files.
#include "sandbox/launch/nursery.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "sandbox/launch/filter.h"
#include "sandbox/launch/first_process.h"
#include "sandbox/launch/kernel.h"

namespace capstan::sandbox {
namespace {

constexpr std::uint32_t kUids = 65'536;
constexpr int kLandlockScopes = 6;
constexpr std::size_t kSeenMax = 64;

std::size_t index_of(Network network) { return static_cast<std::size_t>(network); }
bool interprets(const SandboxSpec& spec) { return spec.lane == Lane::kPythonZygote; }

Fault make_pair(Fd& ours, Fd& theirs) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return "make a socket";
  ours.reset(pair[0]);
  theirs.reset(pair[1]);
  ::fcntl(pair[0], F_SETFL, O_NONBLOCK);
  return nullptr;
}

}  // namespace

Fault Nursery::start(std::uint32_t uid_base, int landlock_abi, const std::string& library, std::size_t ready,
                     std::size_t ready_with_network) {
  uid_base_ = uid_base;
  landlock_abi_ = landlock_abi;
  uids_.assign(kUids, false);
  ready_[0] = ready;
  ready_[1] = ready_with_network;
  for (const Network network : {Network::kNone, Network::kNamespace}) {
    filters_[index_of(network)] = compile_filter(network);
    pools_[std::to_string(index_of(network))] =
        Pool{.spec = {.network = network}, .target = ready_[index_of(network)]};
  }
  zygotes_.start(library, roots_.host_mounts(), filters_[0], filters_[1], landlock_abi);
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

Fault Nursery::take(const SandboxSpec& spec, Newborn& newborn) {
  const bool plain = spec.template_root.empty() && !interprets(spec);
  if (take_from(pool_of(spec), newborn)) return nullptr;
  if (plain && take_from(&pools_.at(std::to_string(index_of(spec.network))), newborn)) return nullptr;
  return make(spec, newborn);
}

// One that was killed meanwhile is not handed out.
bool Nursery::take_from(Pool* pool, Newborn& newborn) {
  while (pool != nullptr && !pool->newborns.empty()) {
    newborn = std::exchange(pool->newborns.front(), {});
    pool->newborns.pop_front();
    pollfd processes[2] = {{newborn.pidfd.get(), POLLIN, 0}, {newborn.runner.pidfd.get(), POLLIN, 0}};
    if (::poll(processes, 2, 0) == 0) return true;
    dismissed_.push_back(std::exchange(newborn, {}));
  }
  return false;
}

// The pool of this shape, if there is one now.
Nursery::Pool* Nursery::pool_of(const SandboxSpec& spec) {
  if (!spec.binds.empty() || ready_[index_of(spec.network)] == 0) return nullptr;
  ++asked_;
  const std::string shape = Packer(MessageKind::kSetup).sandbox(spec).bytes();
  const auto known = pools_.find(shape);
  if (known != pools_.end()) {
    known->second.asked = asked_;
    return &known->second;
  }
  const auto before = std::find(seen_.begin(), seen_.end(), shape);
  if (before != seen_.end()) {
    seen_.erase(before);
    return &add_shape(shape, spec);
  }
  seen_.push_back(shape);
  if (seen_.size() > kSeenMax) seen_.pop_front();
  return nullptr;
}

Nursery::Pool& Nursery::add_shape(const std::string& shape, const SandboxSpec& spec) {
  if (pools_.size() >= kShapesMax + std::size(ready_)) {
    auto oldest = pools_.end();
    for (auto it = pools_.begin(); it != pools_.end(); ++it) {
      if (it->second.whole && (oldest == pools_.end() || it->second.asked < oldest->second.asked))
        oldest = it;
    }
    for (auto& newborn : oldest->second.newborns) dismissed_.push_back(std::move(newborn));
    pools_.erase(oldest);
  }
  Pool pool{.spec = spec, .whole = true, .target = ready_[index_of(spec.network)], .asked = asked_};
  return pools_[shape] = std::move(pool);
}

bool Nursery::refill() {
  for (auto& [shape, pool] : pools_) {
    if (pool.newborns.size() >= pool.target) continue;
    Newborn newborn;
    if (make_for(pool, newborn) != nullptr) {
      pool.target = 0;  // who asks for one gets the error
      continue;
    }
    pool.newborns.push_back(std::move(newborn));
    return true;
  }
  return false;
}

Fault Nursery::make_for(const Pool& pool, Newborn& newborn) {
  if (const Fault fault = make(pool.spec, newborn)) return fault;
  if (!pool.whole) return nullptr;
  SandboxSpec spec = pool.spec;
  Fault fault = set_up(spec, {}, newborn);
  if (fault == nullptr && interprets(spec)) fault = make_runner(spec, newborn, newborn.runner);
  if (fault != nullptr) dismissed_.push_back(std::move(newborn));
  return fault;
}

std::vector<Newborn> Nursery::take_all() {
  std::vector<Newborn> all = take_dismissed();
  for (auto& [shape, pool] : pools_) {
    for (auto& newborn : pool.newborns) all.push_back(std::move(newborn));
  }
  pools_.clear();
  return all;
}

Fault Nursery::make(const SandboxSpec& spec, Newborn& newborn) {
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
  Fd socket, gate;
  if (const Fault fault = make_pair(newborn.socket, socket)) return undo(fault);
  if (interprets(spec)) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return undo("make a pipe");
    newborn.gate.reset(ends[0]);
    gate.reset(ends[1]);
  }
  if (const Fault fault = give_birth(spec, newborn, socket.get(), gate.get())) return undo(fault);
  return nullptr;
}

Fault Nursery::give_birth(const SandboxSpec& spec, Newborn& newborn, int socket, int gate) {
  std::vector<Fd> procs;
  const Fd unified = groups_.open_unified(newborn.group);
  if (!unified || !groups_.open_procs(newborn.group, false, procs)) return "open a cgroup";
  std::uint64_t namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
  // Without Landlock's scopes (ABI 6) only a network namespace keeps the host's abstract sockets away.
  if (spec.network == Network::kNamespace || landlock_abi_ < kLandlockScopes) namespaces |= CLONE_NEWNET;
  if (const Fault fault = roots_.enter(spec.template_root)) return fault;
  int pidfd = -1;
  newborn.pid = kernel::clone3(namespaces, unified.get(), &pidfd);
  if (newborn.pid == 0) {
    FirstProcess first{.socket = socket,
                       .filter = filters_[index_of(spec.network)],
                       .network = spec.network,
                       .host_uid = newborn.host_uid,
                       .landlock_abi = landlock_abi_,
                       .gate = gate};
    for (const auto& file : procs) first.cgroups.push_back(file.get());
    become_first_process(first);
  }
  const int error = errno;
  newborn.pidfd.reset(newborn.pid > 0 ? pidfd : -1);
  const Fault back = roots_.enter("");
  if (newborn.pid > 0) return back;
  errno = error;
  return "make a process in its namespaces";
}

Fault Nursery::set_up(SandboxSpec& spec, const std::vector<int>& trees, Newborn& newborn) {
  if (spec.host_uid == 0) spec.host_uid = newborn.host_uid;
  newborn.whole = true;
  if (!groups_.set_limits(newborn.group, spec.limits)) return "set the limits";
  const std::string bytes = Packer(MessageKind::kSetup).sandbox(spec).bytes();
  return send_message(newborn.socket.get(), bytes, trees) ? nullptr : "reach the first process";
}

Fault Nursery::make_runner(const SandboxSpec& spec, const Newborn& newborn, RunnerProcess& runner) {
  std::vector<Fd> procs;
  const Fd unified = groups_.open_unified(newborn.group);
  if (!unified || !groups_.open_procs(newborn.group, false, procs)) return "open a cgroup";
  Fd inner;
  if (const Fault fault = make_pair(runner.socket, inner)) return fault;
  Zygotes::Birth birth{.socket = inner.get(),
                       .first = newborn.pidfd.get(),
                       .gate = newborn.gate.get(),
                       .cgroup = unified.get()};
  for (const auto& file : procs) birth.procs.push_back(file.get());
  return zygotes_.make(spec, birth, runner.pid, runner.pidfd);
}

}  // namespace capstan::sandbox

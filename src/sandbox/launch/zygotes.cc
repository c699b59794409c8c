// How it works: the launcher forks, returns to the host's mounts and executes Python with a few lines that
// load the library (launch/python_zygote.cc) and hand it their socket. The zygote clones with CLONE_PARENT,
// so that the launcher is the parent of everything and waits for all in the same way.
#include "sandbox/launch/zygotes.h"

#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "sandbox/launch/zygote_program.h"

namespace capstan::sandbox {
namespace {

constexpr int kAnswerSecondsMax = 30;  // a busy host

}  // namespace

void Zygotes::start(const std::string& library, int host_mounts, std::span<const sock_filter> without_network,
                    std::span<const sock_filter> with_network, int landlock_abi) {
  library_ = library;
  host_mounts_ = host_mounts;
  Packer greeting(MessageKind::kHello);
  greeting.u32(static_cast<std::uint32_t>(landlock_abi));
  for (const auto& filter : {without_network, with_network}) {
    greeting.text({reinterpret_cast<const char*>(filter.data()), filter.size_bytes()});
  }
  greeting_ = greeting.bytes();
}

Fault Zygotes::start_zygote(Zygote& zygote) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return "make a socket";
  zygote.socket.reset(pair[0]);
  const Fd inner(pair[1]);
  const timeval patience{.tv_sec = kAnswerSecondsMax, .tv_usec = 0};
  ::setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  zygote.pid = ::fork();
  if (zygote.pid == 0) {
    if (::setns(host_mounts_, CLONE_NEWNS) != 0 || ::dup2(inner.get(), 3) != 3) ::_exit(127);
    ::close_range(4, ~0u, 0);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    const char* argv[] = {"python3", "-I", "-S", "-c", kZygoteProgram, library_.c_str(), nullptr};
    const char* env[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "LD_BIND_NOW=1", nullptr};
    ::execve("/usr/bin/python3", const_cast<char**>(argv), const_cast<char**>(env));
    ::_exit(127);
  }
  if (zygote.pid < 0) return "fork a Python interpreter";
  return send_message(zygote.socket.get(), greeting_) ? nullptr : "greet a Python interpreter";
}

void Zygotes::end(Zygote& zygote) {
  zygote.socket.reset();
  if (zygote.pid <= 0) return;
  ::kill(zygote.pid, SIGKILL);
  ::waitpid(zygote.pid, nullptr, 0);
}

void Zygotes::end_all() {
  for (auto& [tenant, zygote] : zygotes_) end(zygote);
  zygotes_.clear();
}

// The tenant's, started if there is none.
Fault Zygotes::find(const std::string& tenant, Zygote*& found) {
  if (!zygotes_.contains(tenant)) {
    if (zygotes_.size() >= kZygotesMax) {
      const auto oldest =
          std::min_element(zygotes_.begin(), zygotes_.end(),
                           [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
      end(oldest->second);
      zygotes_.erase(oldest);
    }
    if (const Fault fault = start_zygote(zygotes_[tenant])) {
      forget(tenant);
      return fault;
    }
  }
  found = &zygotes_[tenant];
  found->used = ++uses_;
  return nullptr;
}

void Zygotes::forget(const std::string& tenant) {
  const int error = errno;
  end(zygotes_[tenant]);
  zygotes_.erase(tenant);
  errno = error;
}

Fault Zygotes::make(const SandboxSpec& spec, const Birth& birth, pid_t& pid, Fd& pidfd) {
  Packer request(MessageKind::kSpawn);
  request.sandbox(spec);
  std::vector<int> fds = {birth.socket, birth.first, birth.gate, birth.cgroup};
  fds.insert(fds.end(), birth.procs.begin(), birth.procs.end());
  // One that has died since it was last asked is replaced once.
  for (int tried = 0; tried < 2; ++tried) {
    Zygote* zygote = nullptr;
    if (const Fault fault = find(spec.tenant, zygote)) return fault;
    Message answer;
    if (!send_message(zygote->socket.get(), request.bytes(), fds) ||
        receive_message(zygote->socket.get(), answer) != 1) {
      forget(spec.tenant);
      errno = EIO;
      continue;
    }
    Unpacker in(answer.bytes);
    if (in.kind() == MessageKind::kReady && !answer.fds.empty()) {
      pid = static_cast<pid_t>(in.u32());
      pidfd = std::move(answer.fds[0]);
      return nullptr;
    }
    errno = static_cast<int>(in.u32());
    break;
  }
  return "fork the warm Python interpreter (/usr/bin/python3)";
}

}  // namespace capstan::sandbox

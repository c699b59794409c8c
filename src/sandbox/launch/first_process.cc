// How it works: mounts first, while nothing is known yet (the launcher keeps such processes ready); on kSetup
// the rest and the way down from root; then a loop over two descriptors, the launcher's socket and a signalfd
// for children. A command starts by a clone that shares memory until exec, so that its cost does not grow
// with the launcher.
#include "sandbox/launch/first_process.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>
#include <string>

#include "sandbox/launch/command_process.h"
#include "sandbox/launch/descriptors.h"
#include "sandbox/launch/first_mounts.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {
namespace {

constexpr const char* kSearchPath[] = {"/usr/local/bin/", "/usr/bin/", "/bin/"};

// Everything a command's process needs between clone and exec, where it may not allocate.
struct Start {
  CommandProcess process{};
  std::vector<std::string> programs{};  // to try, in order
  std::vector<char*> argv{}, env{};
  Fault fault = nullptr;  // what failed, with `error`; written by the child, which shares our memory
  int error = 0;
};

int run_child(void* argument) {
  Start& start = *static_cast<Start*>(argument);
  start.fault = prepare_command(start.process);
  if (start.fault == nullptr) {
    start.fault = "run the program";
    for (const auto& program : start.programs) {
      ::execve(program.c_str(), start.argv.data(), start.env.data());
      if (errno != ENOENT) break;
    }
  }
  start.error = errno;
  ::_exit(127);
}

class First {
 public:
  explicit First(const FirstProcess& config) : config_(config) {}

  [[noreturn]] void run() {
    if (const Fault fault = prepare()) refuse(fault);
    Message message;
    if (receive_message(config_.socket, message) != 1) ::_exit(1);
    if (const Fault fault = set_up(message)) refuse(fault);
    for (;;) step();
  }

 private:
  // What can be done before it is known for whom.
  Fault prepare() {
    ::prctl(PR_SET_NAME, "sandbox-first", 0, 0, 0);
    for (const int cgroup : config_.cgroups) {
      if (::write(cgroup, "0", 1) != 1) return "join a cgroup";
      ::close(cgroup);
    }
    if (::unshare(CLONE_NEWCGROUP) != 0) return "make a cgroup namespace";
    if (config_.network == Network::kNamespace && !loopback_up()) return "bring up loopback";
    if (const Fault fault = mounts_.make(config_.host_uid)) return fault;
    sigset_t children;
    ::sigemptyset(&children);
    ::sigaddset(&children, SIGCHLD);
    ::sigprocmask(SIG_SETMASK, &children, nullptr);
    children_.reset(::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK));
    return children_ ? nullptr : "make a signalfd";
  }

  static bool loopback_up() {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    return socket && ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0;
  }

  // Nothing inside can take the port from it.
  static bool listen_on(std::uint16_t port, Fd& listener) {
    constexpr int kBacklog = 64;
    listener.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return listener && ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
           ::listen(listener.get(), kBacklog) == 0;
  }

  Fault set_up(Message& message) {
    Unpacker in(message.bytes);
    if (in.kind() != MessageKind::kSetup) return "understand the launcher";
    spec_ = in.sandbox();
    if (!in.good()) return "understand the launcher";
    if (::sethostname(spec_.hostname.data(), spec_.hostname.size()) != 0) return "set the host name";
    if (const Fault fault = mounts_.finish(spec_, message.fds)) return fault;
    message.fds.clear();
    const Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    std::vector<int> given = {root.get()};
    Fd listener;
    if (spec_.listen_port != 0) {
      if (!listen_on(spec_.listen_port, listener)) return "listen on loopback";
      given.push_back(listener.get());
    }
    if (const Fault fault = become_user(mounts_.proc(), spec_.host_uid, spec_.uid)) return fault;
    // Set after the change of user, which clears it; a launcher that died before shows as a closed socket.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return "tie life to the launcher";
    if (config_.landlock_abi > 0) {
      if (const Fault fault = apply_landlock(config_.landlock_abi, writable_paths(spec_), config_.network))
        return fault;
    }
    null_.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int i = 0; i < 3; ++i) {
      if (!null_ || ::dup2(null_.get(), i) < 0) return "open /dev/null";
    }
    if (const Fault fault = apply_filter(config_.filter)) return fault;
    if (config_.gate >= 0) ::close(config_.gate);
    if (spec_.long_lived) send_message(config_.socket, Packer(MessageKind::kReady).bytes(), given);
    return nullptr;
  }

  void step() {
    pollfd watched[2] = {{config_.socket, POLLIN, 0}, {children_.get(), POLLIN, 0}};
    if (::poll(watched, 2, -1) < 0) return;
    if (watched[1].revents != 0) reap();
    if (watched[0].revents == 0) return;
    Message message;
    if (receive_message(config_.socket, message) != 1)
      ::_exit(0);  // the launcher is gone, and with us everything
    Unpacker in(message.bytes);
    const MessageKind kind = in.kind();
    if (kind == MessageKind::kSpawn) return spawn(in, message.fds);
    if (kind == MessageKind::kSignal) signal_command(in);
  }

  // To the command's process group, as a terminal would.
  void signal_command(Unpacker& in) {
    const std::uint32_t id = in.u32();
    const int number = static_cast<int>(in.u32());
    for (const auto& [pid, command] : commands_) {
      if (command == id) ::kill(-pid, number);
    }
  }

  // Descriptors: those of stdio that the mask names, then cgroups to join.
  void spawn(Unpacker& in, const std::vector<Fd>& fds) {
    const std::uint32_t id = in.u32();
    const std::uint32_t given = in.u32();
    CommandSpec command = in.command();
    add_default_env(command.env);
    Start start{.process = {.command = &command, .open_files = spec_.limits.open_files}};
    take_descriptors(start.process, given, fds, null_.get());
    if (!in.good()) return answer_refused(id, "understand the launcher", EBADMSG);
    if (command.argv.empty()) return answer_refused(id, "run the program", ENOENT);
    const std::string& name = command.argv[0];
    if (name.find('/') != name.npos)
      start.programs = {name};
    else
      for (const char* directory : kSearchPath) start.programs.push_back(directory + name);
    start.argv = pointers(command.argv);
    start.env = pointers(command.env);
    const pid_t pid = launch(start);
    if (pid < 0) return answer_refused(id, "start a process", errno);
    if (start.fault != nullptr && start.error != 0) return answer_refused(id, start.fault, start.error);
    commands_[pid] = id;
  }

  static pid_t launch(Start& start) {
    alignas(16) static char stack[32 << 10];
    return ::clone(run_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &start);
  }

  void reap() {
    signalfd_siginfo information;
    while (::read(children_.get(), &information, sizeof information) > 0) {
    }
    int status = 0;
    for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      const auto known = commands_.find(pid);
      if (known == commands_.end()) continue;  // an orphan, or a command that could not start
      send_message(
          config_.socket,
          Packer(MessageKind::kEnded).u32(known->second).u32(static_cast<std::uint32_t>(status)).bytes());
      commands_.erase(known);
      if (!spec_.long_lived) ::_exit(0);
    }
  }

  void answer_refused(std::uint32_t id, Fault fault, int error) {
    send_message(
        config_.socket,
        Packer(MessageKind::kRefused).u32(id).text(fault).u32(static_cast<std::uint32_t>(error)).bytes());
    if (!spec_.long_lived) ::_exit(1);
  }

  [[noreturn]] void refuse(Fault fault) {
    const int error = errno;
    send_message(
        config_.socket,
        Packer(MessageKind::kRefused).u32(0).text(fault).u32(static_cast<std::uint32_t>(error)).bytes());
    ::_exit(1);
  }

  const FirstProcess& config_;
  SandboxSpec spec_;
  FirstMounts mounts_;
  Fd children_, null_;
  std::map<pid_t, std::uint32_t> commands_;
};

}  // namespace

void become_first_process(const FirstProcess& given) {
  // Low, known numbers first, so that everything above can be closed in one go.
  FirstProcess config = given;
  std::vector<int*> kept = {&config.socket};
  if (config.gate >= 0) kept.push_back(&config.gate);
  for (int& cgroup : config.cgroups) kept.push_back(&cgroup);
  keep_descriptors(kept);
  First(config).run();
}

}  // namespace capstan::sandbox

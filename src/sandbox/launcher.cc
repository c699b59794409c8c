// How it works: validation and the launcher's process here; the traffic with it in launcher_link.cc.
#include "sandbox/launcher.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/hash.h"
#include "base/text.h"
#include "sandbox/cgroup.h"
#include "sandbox/launcher_link.h"
#include "sandbox/start_program.h"
#include "sandbox/validate.h"

namespace capstan::sandbox {
namespace {

constexpr std::uint32_t kUidFirst = 0x70000000, kLaunchers = 4096;
constexpr const char* kCanDoWithout[] = {"landlock", "cgroup_memory", "cgroup_cpu", "cgroup_pids",
                                         "namespace_net"};

// Descriptors in the order that the launcher expects: the template, then the binds.
Result<std::vector<Fd>> open_paths(const SandboxSpec& spec) {
  std::vector<Fd> fds;
  const auto open = [&](const std::string& path, int flags) -> Result<void> {
    fds.emplace_back(::open(path.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW | flags));
    if (!fds.back()) return fail_errno("cannot open " + path, errno);
    return {};
  };
  if (!spec.template_root.empty()) CAPSTAN_CHECK(open(spec.template_root, O_DIRECTORY));
  for (const Bind& bind : spec.binds) CAPSTAN_CHECK(open(bind.host_path, 0));
  return fds;
}

std::vector<int> numbers_of(const std::vector<Fd>& fds) {
  std::vector<int> numbers;
  for (const auto& fd : fds) numbers.push_back(fd.get());
  return numbers;
}

}  // namespace

std::uint32_t host_uid_first(std::string_view instance) {
  return kUidFirst + static_cast<std::uint32_t>(fnv1a(instance) % kLaunchers) * kUidsPerLauncher;
}

Result<std::vector<Capability>> check_host(const LauncherOptions& options) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("cannot make a pipe", errno);
  const Fd out(ends[0]);
  Fd in(ends[1]);
  CAPSTAN_TRY(const pid_t pid, start_program(launcher_program(options.program), {"--check"}, -1, in.get()));
  in.reset();
  std::string text;
  char buffer[4096];
  for (ssize_t count = 0; (count = ::read(out.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(count));
  ::waitpid(pid, nullptr, 0);
  std::vector<Capability> capabilities;
  for (const auto line : split(text, '\n')) {
    const auto parts = split(line, '\t');
    if (parts.size() == 3)
      capabilities.push_back({std::string(parts[0]), parts[1] == "yes", std::string(parts[2])});
  }
  const Cgroups cgroups = Cgroups::detect("check-" + std::to_string(::getpid()));
  for (const auto& capability : cgroups.capabilities()) {
    if (capability.name != "cgroup_kill") capabilities.push_back(capability);
  }
  const auto& bases = cgroups.bases();
  const auto unified =
      std::find_if(bases.begin(), bases.end(), [](const Cgroups::Base& base) { return base.version == 2; });
  const bool groups = unified != bases.end() &&
                      ::access((unified->directory + "/cgroup.kill").c_str(), F_OK) == 0 &&
                      ::access((unified->directory + "/cgroup.freeze").c_str(), F_OK) == 0;
  capabilities.push_back({"cgroup_group", groups,
                          groups ? "version 2 at " + unified->directory + ": groups, freezes and kills"
                                 : "no version 2 hierarchy with cgroup.kill and cgroup.freeze (Linux 5.14)"});
  cgroups.remove_instance();
  return capabilities;
}

Result<void> require(const std::vector<Capability>& capabilities, const std::set<std::string>& without) {
  std::string missing;
  for (const auto& capability : capabilities) {
    const bool optional = std::find(std::begin(kCanDoWithout), std::end(kCanDoWithout), capability.name) !=
                          std::end(kCanDoWithout);
    if (capability.ok || (optional && without.contains(capability.name))) continue;
    missing += (missing.empty() ? "" : "; ") + capability.name + " (" + capability.why + ")" +
               (optional ? " [--without " + capability.name + " accepts that]" : "");
  }
  if (missing.empty()) return {};
  return fail(Code::kUnsupported, "this host cannot enforce what a sandbox promises: {}", missing);
}

Result<void> LauncherLink::start() {
  CAPSTAN_TRY(const auto capabilities, check_host(options_));
  CAPSTAN_CHECK(require(capabilities, options_.without));
  return launch();
}

// Starts the process and waits until it has cleared away what an earlier one left.
Result<void> LauncherLink::launch() {
  const Cgroups cgroups = Cgroups::detect("sandbox-" + options_.instance);
  Packer hello(MessageKind::kHello);
  hello.text(options_.instance).u32(static_cast<std::uint32_t>(cgroups.bases().size()));
  for (const auto& base : cgroups.bases())
    hello.u32(static_cast<std::uint32_t>(base.version)).texts(base.controllers).text(base.directory);
  hello.u32(host_uid_first(options_.instance));
  hello.u32(!options_.without.contains("landlock")).u32(options_.ready).u32(options_.ready_with_network);
  hello.text((std::filesystem::absolute(launcher_program(options_.program)).parent_path() /
              "libcapstan-python-zygote.so")
                 .string());
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return fail_errno("cannot make a socket", errno);
  Fd ours(pair[0]), theirs(::fcntl(pair[1], F_DUPFD_CLOEXEC, 10));
  ::close(pair[1]);
  CAPSTAN_TRY(const pid_t pid,
              start_program(launcher_program(options_.program), {"--serve"}, theirs.get(), -1));
  theirs.reset();
  Message answer;
  const bool talked = send_message(ours.get(), hello.bytes()) && receive_message(ours.get(), answer) == 1;
  Unpacker in(answer.bytes);
  if (!talked || in.kind() != MessageKind::kReady) {
    ours.reset();
    ::waitpid(pid, nullptr, 0);
    (void)in.i64();
    (void)in.u32();
    return fail(Code::kUnavailable, "the sandbox launcher did not start: it {}", talked ? in.text() : "died");
  }
  const std::lock_guard lock(mutex_);
  pid_ = pid;
  socket_ = std::move(ours);
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = ~std::uint64_t{0};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket_.get(), &event);
  alive_ = true;
  thread_ = std::thread([this] { run(); });
  return {};
}

Result<void> LauncherLink::ensure_running() {
  const std::lock_guard one(starting_);
  {
    const std::lock_guard lock(mutex_);
    if (alive_) return {};
    if (stopped_) return fail(Code::kUnavailable, "the sandbox launcher was stopped");
  }
  if (thread_.joinable()) thread_.join();
  ::waitpid(pid_, nullptr, 0);
  return launch();
}

void LauncherLink::stop() {
  const std::lock_guard one(starting_);
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stopped_, true)) return;
  }
  std::map<std::string, Warm> warm;  // its commands hold this object
  {
    const std::lock_guard lock(mutex_);
    warm.swap(warm_);
  }
  if (thread_.joinable() && leave() != 0 && launch()) leave();  // a killed one leaves to another what it had
}

// The launcher's wait status. It ends when nothing of its sandboxes is left.
int LauncherLink::leave() {
  ::shutdown(socket_.get(), SHUT_RDWR);
  thread_.join();
  int status = 0;
  ::waitpid(pid_, &status, 0);
  return status;
}

Result<std::unique_ptr<Command>> LauncherLink::start_alone(const SandboxSpec& given,
                                                           const CommandSpec& command, CommandEvents events) {
  CAPSTAN_CHECK(validate(given));
  CAPSTAN_CHECK(validate(command));
  CAPSTAN_CHECK(ensure_running());
  if (given.lane == Lane::kNodeWarm && !command.code.empty())
    return start_warm(given, command, std::move(events));
  if (given.listen_port != 0)
    return fail(Code::kInvalid, "listen_port {} needs a sandbox that lives longer than one command", given.listen_port);
  SandboxSpec spec = given;
  spec.long_lived = false;
  CAPSTAN_TRY(const std::vector<Fd> paths, open_paths(spec));
  std::uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = ++box_next_;
  }
  Packer packer(MessageKind::kCreate);
  packer.i64(static_cast<std::int64_t>(id)).sandbox(spec);
  return begin(id, std::move(packer), numbers_of(paths), command, std::move(events));
}

Result<std::unique_ptr<Command>> LauncherLink::start_in(Sandbox::State& box, const CommandSpec& command,
                                                        CommandEvents events) {
  CAPSTAN_CHECK(validate(command));
  Packer packer(MessageKind::kExec);
  packer.i64(static_cast<std::int64_t>(box.id));
  return begin(box.id, std::move(packer), {}, command, std::move(events));
}

Result<std::unique_ptr<Sandbox>> LauncherLink::create(const SandboxSpec& given) {
  CAPSTAN_CHECK(validate(given));
  CAPSTAN_CHECK(ensure_running());
  SandboxSpec spec = given;
  spec.long_lived = true;
  CAPSTAN_TRY(const std::vector<Fd> paths, open_paths(spec));
  auto sandbox = std::make_unique<Sandbox>();
  auto state = std::make_shared<Sandbox::State>();
  sandbox->link_ = shared_from_this();
  sandbox->state_ = state;
  std::unique_lock lock(mutex_);
  if (!alive_) return fail(Code::kUnavailable, "the sandbox launcher is gone");
  state->id = ++box_next_;
  boxes_[state->id] = state;
  const auto sent =
      send(Packer(MessageKind::kCreate).i64(static_cast<std::int64_t>(state->id)).sandbox(spec).bytes(),
           numbers_of(paths));
  if (!sent) {
    state->gone = true;
    boxes_.erase(state->id);
    return std::unexpected(sent.error());
  }
  changed_.wait(lock, [&] { return state->ready || state->gone; });
  if (state->ready) return sandbox;
  lock.unlock();  // the sandbox's destructor wants it
  if (state->answer && !*state->answer) return std::unexpected(state->answer->error());
  return fail(Code::kUnavailable, "the sandbox launcher is gone");
}

Result<CommandResult> Command::wait() { return link_->wait(*state_); }
void Command::kill() { link_->kill(state_->box, state_->id, Ended::kKilled); }
void Command::signal(int number) { link_->signal(*state_, number); }

Sandbox::~Sandbox() {
  if (link_ != nullptr) kill();
}
Result<std::unique_ptr<Command>> Sandbox::start(const CommandSpec& command, CommandEvents events) {
  return link_->start_in(*state_, command, std::move(events));
}
Result<CommandResult> Sandbox::run(const CommandSpec& command) {
  CAPSTAN_TRY(const auto running, start(command));
  return running->wait();
}
Result<void> Sandbox::freeze() {
  CAPSTAN_TRY(const Usage usage, link_->ask(*state_, MessageKind::kFreeze));
  (void)usage;
  return {};
}
Result<void> Sandbox::thaw() {
  CAPSTAN_TRY(const Usage usage, link_->ask(*state_, MessageKind::kThaw));
  (void)usage;
  return {};
}
Result<Usage> Sandbox::usage() { return link_->ask(*state_, MessageKind::kUsage); }
void Sandbox::kill() { link_->kill(state_->id, 0, Ended::kKilled); }
int Sandbox::root_fd() const { return state_->root.get(); }
int Sandbox::take_listener() { return state_->listener.release(); }
std::uint32_t Sandbox::host_uid() const { return state_->host_uid; }
bool Sandbox::alive() const { return link_->alive(*state_); }

Result<std::unique_ptr<Launcher>> Launcher::start(const LauncherOptions& options) {
  auto launcher = std::make_unique<Launcher>();
  launcher->link_ = std::make_shared<LauncherLink>(options);
  CAPSTAN_CHECK(launcher->link_->start());
  return launcher;
}
Launcher::~Launcher() {
  if (link_ != nullptr) link_->stop();
}
Result<std::unique_ptr<Command>> Launcher::start(const SandboxSpec& spec, const CommandSpec& command,
                                                 CommandEvents events) {
  return link_->start_alone(spec, command, std::move(events));
}
Result<CommandResult> Launcher::run(const SandboxSpec& spec, const CommandSpec& command) {
  CAPSTAN_TRY(const auto running, start(spec, command));
  return running->wait();
}
Result<std::unique_ptr<Sandbox>> Launcher::create(const SandboxSpec& spec) { return link_->create(spec); }
int Launcher::process_id() const { return link_->process_id(); }

}  // namespace capstan::sandbox

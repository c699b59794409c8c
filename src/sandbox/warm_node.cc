// The node-warm lane: Node takes 30 ms of CPU to start and has threads, so it cannot be forked. For each kind
// of sandbox that was asked for, one process waits with its interpreter started; it is given its program on
// standard input, and serves once.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "base/json.h"
#include "sandbox/launcher_link.h"

namespace capstan::sandbox {
namespace {

constexpr std::size_t kWarmMax = 16;
constexpr std::int64_t kIdleMsMax = 3'600'000;
// The parent of a module is what gives it require(); standard input is at its end when the program starts.
constexpr const char* kProgram =
    "const {argv, env, cwd, code} = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
    "process.argv = [process.argv[0], '[code]', ...argv];"
    "for (const name of Object.keys(process.env)) delete process.env[name];"
    "Object.assign(process.env, env); process.chdir(cwd);"
    "const Module = require('module'); const main = new Module('/work/[code]'); main.filename = "
    "'/work/[code]';"
    "main.paths = Module._nodeModulePaths('/work'); main._compile(code, '/work/[code]');";

std::string program_message(const CommandSpec& command) {
  Json argv = Json::array();
  for (const auto& argument : command.argv) argv.push_back(argument);
  Json env = Json::object({{"PATH", "/usr/local/bin:/usr/bin:/bin"}, {"HOME", "/work"}, {"LANG", "C.UTF-8"}});
  for (const auto& entry : command.env) {
    const std::size_t at = entry.find('=');
    if (at != entry.npos) env[entry.substr(0, at)] = entry.substr(at + 1);
  }
  return Json::object({{"argv", argv}, {"env", env}, {"cwd", command.cwd}, {"code", command.code}}).dump();
}

Result<void> give(int socket, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t count = ::send(socket, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (count < 0 && errno != EINTR) return fail_errno("cannot give a program to a warm Node process", errno);
    if (count > 0) at += static_cast<std::size_t>(count);
  }
  return {};
}

}  // namespace

Result<LauncherLink::Warm> LauncherLink::warm_up(const SandboxSpec& given) {
  SandboxSpec spec = given;
  spec.lane = Lane::kProcess;
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
    return fail_errno("cannot make a socket", errno);
  Warm warm{.command = nullptr, .input = Fd(pair[0])};
  const Fd inner(pair[1]);
  CommandSpec command{.argv = {"node", "-e", kProgram}};
  command.limits.wall_ms = kIdleMsMax;
  command.stdin_fd = inner.get();
  CAPSTAN_TRY(warm.command, start_alone(spec, command, {}));
  return warm;
}

Result<std::unique_ptr<Command>> LauncherLink::start_warm(const SandboxSpec& spec, const CommandSpec& command,
                                                          CommandEvents events) {
  if (command.stdin_fd >= 0 || command.stdout_fd >= 0 || command.stderr_fd >= 0 || command.terminal) {
    return fail(Code::kInvalid,
                "the node-warm lane captures output and takes no input; use the process lane");
  }
  const std::string key = Packer(MessageKind::kCreate).sandbox(spec).bytes();
  Warm warm;
  {
    const std::lock_guard lock(mutex_);
    const auto found = warm_.find(key);
    if (found != warm_.end()) {
      warm = std::move(found->second);
      warm_.erase(found);
      if (warm.command->state_->result) warm = {};  // it waited too long, or the launcher was started anew
    }
  }
  if (warm.command == nullptr) {
    CAPSTAN_TRY(warm, warm_up(spec));
  }
  Command::State& state = *warm.command->state_;
  {
    const std::lock_guard lock(mutex_);
    state.output.adopt(command.limits, events.on_output);
    state.events = std::move(events);
    Packer adopt(MessageKind::kAdopt);
    adopt.i64(static_cast<std::int64_t>(state.box)).u32(state.id).command(command);
    CAPSTAN_CHECK(send(adopt.bytes(), {}));
  }
  CAPSTAN_CHECK(give(warm.input.get(), program_message(command)));
  std::unique_ptr<Command> started = std::move(warm.command);
  warm.input.reset();
  auto next = warm_up(spec);
  const std::lock_guard lock(mutex_);
  if (next && warm_.size() < kWarmMax)
    warm_[key] = std::move(*next);
  else if (next)
    (void)send(Packer(MessageKind::kKill)
                   .i64(static_cast<std::int64_t>(next->command->state_->box))
                   .u32(0)
                   .u32(static_cast<std::uint32_t>(Ended::kKilled))
                   .bytes(),
               {});
  return started;
}

}  // namespace capstan::sandbox

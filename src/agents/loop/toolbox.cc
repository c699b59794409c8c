// Arguments are read leniently where models are known to slip (bare code instead of JSON), refused in words
// otherwise.
#include "agents/loop/toolbox.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "sandbox/root_files.h"

namespace capstan::agents::loop {
namespace {

constexpr std::int64_t kCapturedBytesMax = 1 << 20;

// Judges: the last expression is the verdict. Prints a score; a check that is False fails.
constexpr const char* kJudge = R"PY(
import ast, json, sys
given = json.load(sys.stdin)
scope = {"__name__": "__main__", **given["facts"]}
tree = ast.parse(given["code"], "<" + given["kind"] + ">")
last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
try:
    exec(compile(tree, "<" + given["kind"] + ">", "exec"), scope)
    value = eval(compile(last, "<" + given["kind"] + ">", "eval"), scope) if last is not None else None
except AssertionError as error:
    sys.exit(str(error) or "an assertion failed")
except Exception as error:
    sys.exit("%s: %s" % (type(error).__name__, error))
if given["kind"] == "score" and value is not None:
    print(float(value))
elif value is False:
    sys.exit("it is not true that " + ast.unparse(last))
)PY";

Outcome refused(std::string why) { return {.output = std::move(why), .ended = "refused", .exit_code = 1}; }

// A descriptor that reads `text` from its beginning; -1 if there is no memory.
int descriptor_of(std::string_view text) {
  const int fd = ::memfd_create("capstan-facts", MFD_CLOEXEC);
  while (fd >= 0 && !text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count <= 0) {
      ::close(fd);
      return -1;
    }
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  if (fd >= 0) ::lseek(fd, 0, SEEK_SET);
  return fd;
}

std::string inside_path(const std::string& path) { return path.starts_with('/') ? path : "/work/" + path; }

Result<Json> parse_arguments(const ToolCall& call) {
  auto parsed = Json::parse(call.arguments);
  if (parsed && parsed->is_object()) return parsed;
  if (call.name == tool_name(Tool::kPython)) {  // bare code
    return Json::object({{"code", parsed && parsed->is_string() ? parsed->as_string() : call.arguments}});
  }
  return fail(Code::kInvalid, "the arguments must be a JSON object, not: {}", call.arguments.substr(0, 200));
}

void note_end(Outcome& outcome) {
  if (outcome.ended == "exited" && outcome.exit_code == 0) return;
  if (!outcome.output.empty() && !outcome.output.ends_with('\n')) outcome.output += '\n';
  outcome.output += outcome.ended == "exited" ? fmt::format("[exit code {}]", outcome.exit_code)
                                              : fmt::format("[stopped: {}]", outcome.ended);
}

}  // namespace

std::string clip(std::string_view text, std::size_t bytes_max, bool& truncated) {
  std::string whole;
  append_json_string(whole, text);  // what is not UTF-8 becomes U+FFFD
  whole = Json::parse(whole)->as_string();
  while (whole.ends_with('\n')) whole.pop_back();
  if (whole.size() <= bytes_max) return whole;
  truncated = true;
  const auto is_inside = [&](std::size_t at) {
    return (static_cast<unsigned char>(whole[at]) & 0xc0) == 0x80;
  };
  std::size_t head = bytes_max * 2 / 3, tail = whole.size() - (bytes_max - head);
  while (head > 0 && is_inside(head)) --head;
  while (tail < whole.size() && is_inside(tail)) ++tail;
  return fmt::format("{}\n[{} bytes left out]\n{}", whole.substr(0, head), tail - head, whole.substr(tail));
}

Result<std::unique_ptr<Toolbox>> Toolbox::open(sandbox::Launcher& launcher, const SandboxOptions& options) {
  std::unique_ptr<Toolbox> box(new Toolbox(launcher, options));
  CAPSTAN_CHECK(box->create());
  return box;
}

Result<void> Toolbox::create() {
  sandbox::SandboxSpec spec{
      .network = options_.network ? sandbox::Network::kNamespace : sandbox::Network::kNone,
      .limits = {.memory_bytes = options_.memory_bytes,
                 .milli_cpus = options_.milli_cpus,
                 .pids = options_.pids,
                 .tmpfs_bytes = options_.disk_bytes},
      .template_root = options_.template_root,
      .tenant = "agents",
      .long_lived = true};
  for (const BoundDirectory& bind : options_.binds) spec.binds.push_back({bind.from, bind.path, false});
  CAPSTAN_TRY(auto box, launcher_.create(spec));
  for (const InsideFile& file : options_.files) {
    CAPSTAN_CHECK(sandbox::write_inside(box->root_fd(), file.path, file.content, box->host_uid()));
  }
  const std::scoped_lock lock(mutex_);
  box_ = std::move(box);
  if (killed_) return fail(Code::kCancelled, "stopped");
  python_ = std::make_unique<Interpreter>(*box_, limits(options_.call_time_ms));
  return {};
}

Result<void> Toolbox::restart() {
  before_ = usage();
  python_.reset();
  {
    const std::scoped_lock lock(mutex_);
    box_.reset();
  }
  return create();
}

void Toolbox::kill() {
  const std::scoped_lock lock(mutex_);
  killed_ = true;
  if (box_ != nullptr) box_->kill();
}

sandbox::Usage Toolbox::usage() const {
  sandbox::Usage out = before_;
  const auto now = box_ == nullptr ? Result<sandbox::Usage>{} : box_->usage();
  if (!now) return out;
  out.cpu_us += now->cpu_us;
  out.memory_peak_bytes = std::max(out.memory_peak_bytes, now->memory_peak_bytes);
  return out;
}

std::int64_t Toolbox::cpu_us() const {
  const auto now = box_->usage();
  return now ? now->cpu_us : 0;
}

sandbox::CommandLimits Toolbox::limits(std::int64_t time_ms) const {
  return {.wall_ms = std::clamp<std::int64_t>(time_ms, 1, options_.call_time_ms),
          .cpu_ms = options_.call_cpu_ms,
          .output_bytes = kCapturedBytesMax,
          .memory_bytes = std::min(options_.call_memory_bytes, options_.memory_bytes)};
}

Result<Outcome> Toolbox::call(const ToolCall& call, std::int64_t time_ms) {
  const auto tool = tool_of_name(call.name);
  if (!tool) return refused(fmt::format("there is no tool '{}'", call.name));
  const auto arguments = parse_arguments(call);
  if (!arguments) return refused(arguments.error().message);
  Result<Outcome> outcome = Outcome{};
  if (*tool == Tool::kReadFile) {
    outcome = read_file(*arguments);
  } else if (*tool == Tool::kWriteFile) {
    outcome = write_file(*arguments);
  } else if (*tool == Tool::kPython) {
    outcome = run_python(*arguments, time_ms);
  } else if (const auto command = arguments->get_string("command")) {
    outcome = run_command({"/bin/sh", "-c", *command}, time_ms);
    if (outcome) note_end(*outcome);
  } else {
    outcome = refused("'command' is missing: the shell line to run");
  }
  if (!outcome) return outcome;
  outcome->output =
      clip(outcome->output, static_cast<std::size_t>(options_.call_output_bytes), outcome->truncated);
  return outcome;
}

Result<Outcome> Toolbox::run_python(const Json& arguments, std::int64_t time_ms) {
  const auto code = arguments.get_string("code");
  if (!code) return refused("'code' is missing: the Python source to run");
  const std::int64_t before = cpu_us();
  CAPSTAN_TRY(Outcome outcome,
              python_->run(*code, std::clamp<std::int64_t>(time_ms, 1, options_.call_time_ms)));
  const auto after = box_->usage();
  outcome.cpu_us = after ? std::max<std::int64_t>(0, after->cpu_us - before) : 0;
  outcome.memory_peak_bytes = after ? after->memory_peak_bytes : 0;
  return outcome;
}

Result<Outcome> Toolbox::run_command(const std::vector<std::string>& argv, std::int64_t time_ms,
                                     int stdin_fd) {
  // Both streams in the order in which they came; events end before wait() does.
  std::string output;
  sandbox::CommandEvents events;
  events.on_output = [&](sandbox::Stream, std::string_view piece) { output += piece; };
  const auto command = box_->start({.argv = argv, .limits = limits(time_ms), .stdin_fd = stdin_fd}, events);
  const auto result =
      command ? (*command)->wait() : Result<sandbox::CommandResult>(std::unexpected(command.error()));
  if (!result && result.error().code == Code::kNotFound) return refused(result.error().message);
  if (!result) return std::unexpected(result.error());
  if (result->ended == sandbox::Ended::kLost) return fail(Code::kUnavailable, "the sandbox is lost");
  return Outcome{.output = std::move(output),
                 .ended = sandbox::ended_name(result->ended),
                 .exit_code = result->exit_code,
                 .truncated = result->output_truncated,
                 .cpu_us = result->usage.cpu_us,
                 .memory_peak_bytes = result->usage.memory_peak_bytes};
}

Outcome Toolbox::read_file(const Json& arguments) const {
  const auto path = arguments.get_string("path");
  if (!path) return refused("'path' is missing: the file to read");
  auto text = sandbox::read_inside(box_->root_fd(), inside_path(*path), kCapturedBytesMax);
  if (!text) return {.output = text.error().message, .ended = "exited", .exit_code = 1};
  return {.output = *std::move(text), .ended = "exited"};
}

Outcome Toolbox::write_file(const Json& arguments) const {
  const auto path = arguments.get_string("path");
  const auto content = arguments.get_string("content");
  if (!path || !content) return refused("'path' and 'content' are needed: where to write what");
  const auto written = sandbox::write_inside(box_->root_fd(), inside_path(*path), *content, box_->host_uid());
  if (!written) return {.output = written.error().message, .ended = "exited", .exit_code = 1};
  return {.output = fmt::format("wrote {} bytes to {}", content->size(), inside_path(*path)),
          .ended = "exited"};
}

Result<Outcome> Toolbox::judge(StepKind kind, const Program& program, const Json& facts,
                               std::int64_t time_ms) {
  if (kind == StepKind::kScore) {
    python_->stop();
    // Everything but the shell itself and the sandbox's first process. A template without a shell has none to
    // kill.
    [[maybe_unused]] const auto killed = run_command({"/bin/sh", "-c", "kill -9 -1"}, time_ms);
  }
  std::vector<std::string> argv = program.command;
  std::string input = facts.dump();
  if (argv.empty()) {
    argv = {"python3", "-I", "-c", kJudge};
    input = Json::object({{"kind", step_kind_name(kind)}, {"code", program.python}, {"facts", facts}}).dump();
  }
  const int fd = descriptor_of(input);
  if (fd < 0) return fail(Code::kExhausted, "no memory for {} bytes of input", input.size());
  auto outcome = run_command(argv, time_ms, fd);
  ::close(fd);
  if (!outcome) return outcome;
  outcome->output =
      clip(outcome->output, static_cast<std::size_t>(options_.call_output_bytes), outcome->truncated);
  return outcome;
}

}  // namespace capstan::agents::loop

// How it works: a kernel reads its requests ahead, so they are written at once and in the order in which their sinks
// wait; events belong to the first of those until end_of_execution.
#include "agents/sessions/interpreter.h"

#include <algorithm>
#include <csignal>
#include <deque>

#include "agents/kernel/kernel_source.h"
#include "agents/sessions/paths.h"
#include "base/file.h"

namespace capstan::agents {
namespace {

constexpr int kContextIdBytes = 8;
constexpr std::size_t kComplaintBytesMax = 4'096;
constexpr std::string_view kDefaultContext = "default";
constexpr std::string_view kEndOfExecution = R"({"type": "end_of_execution"})";

std::string error_line(std::string_view name, std::string_view value) {
  return Json::object({{"type", "error"}, {"name", name}, {"value", value}, {"traceback", value}}).dump();
}

Json words(const Words& all) {
  Json out = Json::object();
  for (const auto& [name, value] : all) out[name] = value;
  return out;
}

// What is read when a program starts, so that it is too late for one that runs.
bool is_read_at_start(std::string_view name) {
  constexpr std::string_view kBegins[] = {"PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_"};
  return std::ranges::any_of(kBegins, [&](std::string_view begin) { return name.starts_with(begin); });
}

}  // namespace

// One Python, and the sinks of its cells. `sinks_` is under the mutex, the rest is the loop's.
class Interpreter::Kernel final : public ProcessListener {
 public:
  Result<void> start(Session& session, const CodeContext& about, std::shared_ptr<Kernel> self) {
    ProcessSpec spec{.argv = {"/usr/bin/env", "python3", "-c", std::string(kKernelSource)},
                     .env = {"PYTHONUNBUFFERED=1", "MPLBACKEND=agg"},
                     .cwd = about.cwd,
                     .tag = "code:" + about.id,
                     .own = true,
                     .input = true};
    CAPSTAN_TRY(process_, session.start(std::move(spec), std::move(self)));
    return {};
  }

  Result<void> execute(const std::string& request, SinkPtr sink) {
    const std::lock_guard order(order_);
    {
      const std::lock_guard lock(mutex_);
      if (over_) return fail(Code::kUnavailable, "the context's Python has just ended; try again");
      if (sinks_.size() >= kCellsMax)
        return fail(Code::kExhausted, "{} cells wait for this context, the most that may", kCellsMax);
      sinks_.push_back(std::move(sink));
    }
    // If this fails the process has ended or hangs; either way its end reaches the sinks.
    if (const auto written = process_->write_input(request + "\n"); !written) process_->kill();
    return {};
  }

  // Of cells from now on.
  void set_env(const Words& env) {
    const std::lock_guard order(order_);
    if (const auto written = process_->write_input(Json::object({{"env_vars", words(env)}}).dump() + "\n"); !written)
      process_->kill();
  }

  void abandon(const CodeSink* sink) {
    const std::lock_guard lock(mutex_);
    if (!sinks_.empty() && sinks_.front().get() == sink) process_->signal(SIGINT);
    for (auto& one : sinks_) {
      if (one.get() == sink) one = nullptr;
    }
  }
  bool over() const {
    const std::lock_guard lock(mutex_);
    return over_;
  }
  void kill() { process_->kill(); }

  void on_output(Channel channel, std::string_view bytes) override {
    if (channel == Channel::kErr) {
      complaint_.append(bytes.substr(0, kComplaintBytesMax - std::min(kComplaintBytesMax, complaint_.size())));
      return;
    }
    line_ += bytes;
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = line_.find('\n', begin)) != line_.npos; begin = end + 1)
      on_line(std::string_view(line_).substr(begin, end - begin));
    line_.erase(0, begin);
    if (line_.size() > kLineBytesMax) {
      complaint_ = fmt::format("a result of more than {} bytes", kLineBytesMax);
      line_.clear();
      process_->kill();
    }
  }
  void on_end(const Result<sandbox::CommandResult>& result) override {
    std::deque<SinkPtr> left;
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      left.swap(sinks_);
    }
    std::string why = complaint_;
    if (!result)
      why = result.error().message;
    else if (why.empty())
      why = fmt::format("the context's Python ended ({}, exit code {}); the next cell begins afresh",
                        sandbox::ended_name(result->ended), result->exit_code);
    for (const auto& sink : left) {
      if (!sink) continue;
      sink->on_line(error_line("KernelDied", why));
      sink->on_done();
    }
  }
  std::size_t backlog_bytes() override {
    const SinkPtr sink = front();
    return sink ? sink->backlog_bytes() : 0;
  }
  void when_caught_up(std::function<void()> callback) override {
    if (const SinkPtr sink = front())
      sink->when_caught_up(std::move(callback));
    else
      callback();
  }

 private:
  SinkPtr front() const {
    const std::lock_guard lock(mutex_);
    return sinks_.empty() ? nullptr : sinks_.front();
  }
  void on_line(std::string_view line) {
    const SinkPtr sink = front();
    if (sink) sink->on_line(line);
    if (line != kEndOfExecution) return;
    {
      const std::lock_guard lock(mutex_);
      if (!sinks_.empty()) sinks_.pop_front();
    }
    if (sink) sink->on_done();
  }

  ProcessPtr process_;
  std::mutex order_;  // sinks wait in the order in which requests are written
  mutable std::mutex mutex_;
  std::deque<SinkPtr> sinks_;
  bool over_ = false;
  std::string line_, complaint_;
};

Interpreter::~Interpreter() = default;

Result<Interpreter::Context*> Interpreter::find(const std::string& id) {
  const auto found = contexts_.find(id);
  if (found == contexts_.end()) return fail(Code::kNotFound, "there is no code context {}", id);
  return &found->second;
}

Result<std::shared_ptr<Interpreter::Kernel>> Interpreter::kernel_of(Context& context) {
  if (context.kernel && !context.kernel->over()) return context.kernel;
  auto kernel = std::make_shared<Kernel>();
  CAPSTAN_CHECK(kernel->start(session_, context.about, kernel));
  context.kernel = kernel;
  return kernel;
}

Interpreter::Context& Interpreter::default_context() {
  const std::string id(kDefaultContext);
  return contexts_.try_emplace(id, Context{{id, "python", std::string(kHome)}, nullptr}).first->second;
}

Result<void> Interpreter::start_ahead() {
  const std::lock_guard lock(mutex_);
  ahead_ = session_.environment({});
  CAPSTAN_TRY(const auto kernel, kernel_of(default_context()));
  return {};
}

void Interpreter::begin() {
  const std::lock_guard lock(mutex_);
  Context& context = default_context();
  if (!context.kernel) return;
  Words changed;
  bool too_late = false;
  for (const std::string& entry : session_.environment({})) {
    if (std::ranges::find(ahead_, entry) != ahead_.end()) continue;
    const std::size_t equals = entry.find('=');
    changed[entry.substr(0, equals)] = entry.substr(equals + 1);
    too_late = too_late || is_read_at_start(entry);
  }
  if (too_late) {
    context.kernel->kill();
    context.kernel = nullptr;
  } else if (!changed.empty()) {
    context.kernel->set_env(changed);
  }
}

Result<void> Interpreter::execute(const Cell& cell, SinkPtr sink) {
  if (!cell.language.empty() && cell.language != "python")
    return fail(Code::kInvalid, "code in '{}' is not run here; python is, and any program by a command", cell.language);
  std::shared_ptr<Kernel> kernel;
  {
    const std::lock_guard lock(mutex_);
    if (cell.context.empty()) default_context();
    CAPSTAN_TRY(Context * context, find(cell.context.empty() ? std::string(kDefaultContext) : cell.context));
    CAPSTAN_TRY(kernel, kernel_of(*context));
  }
  return kernel->execute(Json::object({{"code", cell.code}, {"env_vars", words(cell.env)}}).dump(), std::move(sink));
}

void Interpreter::abandon(const SinkPtr& sink) {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, context] : contexts_) {
    if (context.kernel) context.kernel->abandon(sink.get());
  }
}

Result<CodeContext> Interpreter::add(const std::string& language, const std::string& cwd) {
  if (!language.empty() && language != "python")
    return fail(Code::kInvalid, "contexts are of python here, not of '{}'", language);
  CAPSTAN_TRY(const std::string inside, path_inside(cwd.empty() ? kHome : std::string_view(cwd)));
  const std::lock_guard lock(mutex_);
  if (contexts_.size() >= kContextsMax)
    return fail(Code::kExhausted, "the session has {} code contexts, the most that it may", contexts_.size());
  Context context{{random_hex(kContextIdBytes), "python", shown_path(inside)}, nullptr};
  CAPSTAN_TRY(const auto kernel, kernel_of(context));
  const CodeContext about = context.about;
  contexts_[about.id] = std::move(context);
  return about;
}

std::vector<CodeContext> Interpreter::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<CodeContext> all;
  for (const auto& [id, context] : contexts_) all.push_back(context.about);
  return all;
}

Result<void> Interpreter::remove(const std::string& id) {
  const std::lock_guard lock(mutex_);
  CAPSTAN_TRY(Context * context, find(id));
  if (context->kernel) context->kernel->kill();
  contexts_.erase(id);
  return {};
}

Result<void> Interpreter::restart(const std::string& id) {
  const std::lock_guard lock(mutex_);
  CAPSTAN_TRY(Context * context, find(id));
  if (context->kernel) context->kernel->kill();
  context->kernel = nullptr;
  CAPSTAN_TRY(const auto kernel, kernel_of(*context));
  return {};
}

}  // namespace capstan::agents

// How it works: a process leaves the table when the loop has delivered its end. Usage is sampled by the manager; memory
// over time is what is in use at a sample, for the time until the next.
#include "agents/sessions/session.h"

#include <fcntl.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "agents/sessions/file_tree.h"
#include "agents/sessions/interpreter.h"
#include "agents/sessions/packages.h"
#include "agents/sessions/paths.h"
#include "agents/sessions/session_id.h"
#include "agents/sessions/templates.h"
#include "base/file.h"

namespace capstan::agents {
namespace {

constexpr int kTokenBytes = 24;

void add_env(std::vector<std::string>& env, const std::string& name, const std::string& value) {
  const std::string begins = name + "=";
  const auto given = [&](const std::string& entry) { return entry.starts_with(begins); };
  if (std::none_of(env.begin(), env.end(), given)) env.push_back(begins + value);
}

// In both spellings, because programs know one or the other.
void add_proxy_env(std::vector<std::string>& env) {
  const std::string proxy = fmt::format("http://127.0.0.1:{}", kEgressPort);
  for (const char* name : {"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"}) add_env(env, name, proxy);
  for (const char* name : {"NO_PROXY", "no_proxy"}) add_env(env, name, "localhost,127.0.0.1,::1");
}

// Before what the system has, and after what the client names itself.
void add_packages_env(std::vector<std::string>& env) {
  const auto given = [&](std::string_view begins) {
    return std::ranges::find_if(env, [&](const std::string& entry) { return entry.starts_with(begins); });
  };
  add_env(env, "BASH_ENV", fmt::format("{}/.bash_env", kPackagesPath));
  if (const auto path = given("PATH="); path != env.end())
    path->append(fmt::format(":{}/bin", kPackagesPath));
  else
    env.push_back(fmt::format("PATH={}/bin:/usr/local/bin:/usr/bin:/bin", kPackagesPath));
  if (const auto path = given("PYTHONPATH="); path != env.end())
    path->append(fmt::format(":{}", kPackagesPath));
  else
    env.push_back(fmt::format("PYTHONPATH={}", kPackagesPath));
}

}  // namespace

std::int64_t unix_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

Session::Session(http::EventLoop& loop, SessionParts parts, const Words& env)
    : loop_(loop), id_(make_session_id()), token_(random_hex(kTokenBytes)), parts_(std::move(parts)) {
  terms_.env = env;
}
Session::~Session() {
  if (parts_.egress) parts_.egress->stop();
}

void Session::begin(SessionTerms terms, HostRules hosts) {
  terms.env.insert(terms_.env.begin(), terms_.env.end());
  terms_ = std::move(terms);
  if (terms_.placed && terms_.placed->workload > 0) id_ = make_session_id(terms_.placed->workload);
  if (parts_.egress) parts_.egress->set_rules(std::move(hosts));
  started_ms_ = sampled_ms_ = part_began_ms_ = unix_ms();
  ends_ms_ = started_ms_ + terms_.timeout_ms;
  open_.runs = 1;
  if (interpreter_) interpreter_->begin();
}

std::int64_t Session::ends_ms() const {
  const std::lock_guard lock(mutex_);
  return ends_ms_;
}

Session::State Session::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

Result<void> Session::usable() const {
  if (state_ == State::kPaused) return fail(Code::kConflict, "sandbox {} is paused; connect to it to resume it", id_);
  if (state_ == State::kEnded || !parts_.sandbox->alive()) return fail(Code::kUnavailable, "sandbox {} has ended", id_);
  return {};
}

std::vector<std::string> Session::environment(std::vector<std::string> env) const {
  for (const auto& [name, value] : terms_.env) add_env(env, name, value);
  add_env(env, "HOME", std::string(kHome));
  add_env(env, "USER", "user");
  add_env(env, "LOGNAME", "user");
  if (!hosts().empty()) add_proxy_env(env);
  if (parts_.packages) add_packages_env(env);
  return env;
}

Result<ProcessPtr> Session::start(ProcessSpec spec, ListenerPtr listener) {
  spec.env = environment(std::move(spec.env));
  if (spec.cwd.empty()) spec.cwd = kHome;
  CAPSTAN_TRY(spec.cwd, path_inside(spec.cwd));
  if (const auto entry = sandbox::stat_inside(root_fd(), spec.cwd); !entry)
    return std::unexpected(Error(entry.error()).with_context("working directory"));
  else if (entry->type != 'd')
    return fail(Code::kInvalid, "working directory {} is not a directory", shown_path(spec.cwd));
  add_env(spec.env, "PWD", shown_path(spec.cwd));
  const std::lock_guard lock(mutex_);
  CAPSTAN_CHECK(usable());
  if (processes_.size() >= kProcessesMax)
    return fail(Code::kExhausted, "sandbox {} runs {} commands already, the most that it may", id_, kProcessesMax);
  const int number = ++number_next_;
  const auto on_gone = [weak = weak_from_this(), number] {
    const auto self = weak.lock();
    if (!self) return;
    const std::lock_guard guard(self->mutex_);
    const auto found = self->processes_.find(number);
    if (found == self->processes_.end()) return;
    self->process_bytes_in_ += found->second->bytes_in();
    self->process_bytes_out_ += found->second->bytes_out();
    self->processes_.erase(found);
  };
  CAPSTAN_TRY(auto process, Process::start(loop_, *parts_.sandbox, std::move(spec), number, std::move(listener), on_gone));
  processes_[number] = process;
  return process;
}

Result<ProcessPtr> Session::process(int number) const {
  const std::lock_guard lock(mutex_);
  const auto found = processes_.find(number);
  if (found != processes_.end()) return found->second;
  return fail(Code::kNotFound, "no process {} runs in sandbox {}", number, id_);
}

Result<ProcessPtr> Session::process(const std::string& tag) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [number, process] : processes_) {
    if (process->spec().tag == tag) return process;
  }
  return fail(Code::kNotFound, "no process with the tag '{}' runs in sandbox {}", tag, id_);
}

std::vector<ProcessPtr> Session::processes() const {
  const std::lock_guard lock(mutex_);
  std::vector<ProcessPtr> all;
  for (const auto& [number, process] : processes_) {
    if (!process->spec().own) all.push_back(process);
  }
  return all;
}

Result<std::string> Session::read(const std::string& path) const {
  CAPSTAN_TRY(const std::string inside, path_inside(path));
  CAPSTAN_TRY(std::string bytes, sandbox::read_inside(root_fd(), inside, kFileBytesMax));
  file_bytes_out_ += static_cast<std::int64_t>(bytes.size());
  return bytes;
}

Result<void> Session::write(const std::string& path, std::string_view bytes) {
  CAPSTAN_TRY(const std::string inside, path_inside(path));
  file_bytes_in_ += static_cast<std::int64_t>(bytes.size());
  return sandbox::write_inside(root_fd(), inside, bytes, host_uid());
}

Result<sandbox::InsideEntry> Session::stat(const std::string& path) const {
  CAPSTAN_TRY(const std::string inside, path_inside(path));
  return sandbox::stat_inside(root_fd(), inside);
}

Result<std::vector<sandbox::InsideEntry>> Session::list(const std::string& path) const {
  CAPSTAN_TRY(const std::string inside, path_inside(path));
  return sandbox::list_inside(root_fd(), inside);
}

Result<void> Session::make_directory(const std::string& path) {
  CAPSTAN_TRY(const std::string inside, path_inside(path));
  return sandbox::make_directory_inside(root_fd(), inside, host_uid());
}

Result<void> Session::remove(const std::string& path) {
  CAPSTAN_TRY(const std::string inside, path_inside(path));
  return sandbox::remove_inside(root_fd(), inside);
}

Result<void> Session::rename(const std::string& from, const std::string& to) {
  CAPSTAN_TRY(const std::string old_path, path_inside(from));
  CAPSTAN_TRY(const std::string new_path, path_inside(to));
  return sandbox::rename_inside(root_fd(), old_path, new_path);
}

Result<void> Session::copy_home(const std::filesystem::path& directory) {
  const std::lock_guard lock(mutex_);
  if (state_ == State::kEnded) return usable();
  if (state_ == State::kRunning) CAPSTAN_CHECK(parts_.sandbox->freeze());
  const auto copied = [&]() -> Result<void> {
    CAPSTAN_CHECK(make_directories(directory, 0700));
    const sandbox::Fd from(::openat(root_fd(), "work", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    const sandbox::Fd to(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!from || !to) return fail_errno("cannot open the sandbox's home", errno);
    return copy_tree(from.get(), to.get(),
                     {.owner = ::geteuid(), .bytes_max = kSnapshotBytesMax, .files_max = kSnapshotFilesMax});
  }();
  if (state_ == State::kRunning) CAPSTAN_CHECK(parts_.sandbox->thaw());
  return copied;
}

Result<void> Session::fill_home(const std::filesystem::path& directory) {
  const sandbox::Fd from(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  const sandbox::Fd to(::openat(root_fd(), "work", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!from || !to) return fail_errno("cannot open the snapshot", errno);
  return copy_tree(from.get(), to.get(),
                   {.owner = host_uid(), .bytes_max = kSnapshotBytesMax, .files_max = kSnapshotFilesMax});
}

Result<void> Session::pause() {
  const std::lock_guard lock(mutex_);
  CAPSTAN_CHECK(usable());
  CAPSTAN_CHECK(parts_.sandbox->freeze());
  state_ = State::kPaused;
  left_ms_ = std::max<std::int64_t>(ends_ms_ - unix_ms(), 0);
  return {};
}

Result<void> Session::resume(std::int64_t timeout_ms, bool keeps) {
  const std::lock_guard lock(mutex_);
  if (state_ == State::kPaused) {
    CAPSTAN_CHECK(parts_.sandbox->thaw());
    state_ = State::kRunning;
    ends_ms_ = keeps || terms_.placed ? unix_ms() + left_ms_ : 0;
  }
  CAPSTAN_CHECK(usable());
  ends_ms_ = std::max(ends_ms_, unix_ms() + timeout_ms);
  return {};
}

void Session::set_timeout(std::int64_t timeout_ms) {
  const std::lock_guard lock(mutex_);
  ends_ms_ = unix_ms() + timeout_ms;
}

Result<void> Session::wake() {
  if (terms_.auto_resume && state() == State::kPaused) return resume(terms_.timeout_ms);
  const std::lock_guard lock(mutex_);
  CAPSTAN_CHECK(usable());
  if (terms_.sliding) ends_ms_ = std::max(ends_ms_, unix_ms() + terms_.timeout_ms);
  return {};
}

void Session::end() {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::kEnded) return;
    state_ = State::kEnded;
  }
  if (parts_.egress) parts_.egress->stop();
  parts_.sandbox->kill();
}

HostRules Session::hosts() const { return parts_.egress ? parts_.egress->rules() : HostRules{}; }

Result<void> Session::set_network(const NetworkWish& wish) {
  CAPSTAN_TRY(HostRules hosts, parts_.network.grant(wish));
  if (parts_.egress) parts_.egress->set_rules(std::move(hosts));
  return {};
}

Interpreter& Session::interpreter() {
  const std::lock_guard lock(mutex_);
  if (!interpreter_) interpreter_ = std::make_unique<Interpreter>(*this);
  return *interpreter_;
}

void Session::sample(std::int64_t now_ms) {
  const auto usage = parts_.sandbox->usage();
  std::int64_t in = file_bytes_in_.exchange(0), out = file_bytes_out_.exchange(0);
  {
    const std::lock_guard lock(mutex_);
    in += std::exchange(process_bytes_in_, 0);
    out += std::exchange(process_bytes_out_, 0);
  }
  if (parts_.egress) {
    in += parts_.egress->take_bytes_in();
    out += parts_.egress->take_bytes_out();
  }
  const std::lock_guard lock(usage_mutex_);
  open_.memory_mib_ms += (last_.memory_bytes >> 20) * std::max<std::int64_t>(now_ms - sampled_ms_, 0);
  sampled_ms_ = now_ms;
  if (usage) last_ = *usage;
  if (usage) open_.memory_peak_bytes = std::max(open_.memory_peak_bytes, last_.memory_peak_bytes);
  open_.wall_ms = now_ms - part_began_ms_;
  open_.cpu_us = last_.cpu_us - cpu_recorded_us_;
  open_.bytes_in += in;
  open_.bytes_out += out;
}

store::ComputeRecord Session::record() const {
  return {.id = fmt::format("sandbox/{}/{}", id_, part_),
          .time_ms = sampled_ms_,
          .kind = "sandbox",
          .name = terms_.placed ? terms_.placed->tenant + "/" + terms_.placed->name : id_,
          .key = terms_.owner.key,
          .project = terms_.owner.project,
          .organisation = terms_.owner.organisation,
          .sum = open_};
}

store::ComputeRecord Session::open_usage() const {
  const std::lock_guard lock(usage_mutex_);
  return record();
}

store::ComputeRecord Session::take_usage(std::int64_t now_ms) {
  sample(now_ms);
  const std::lock_guard lock(usage_mutex_);
  store::ComputeRecord taken = record();
  ++part_;
  cpu_recorded_us_ = last_.cpu_us;
  part_began_ms_ = now_ms;
  open_ = {};
  return taken;
}

sandbox::Usage Session::usage_now() const {
  if (const auto usage = parts_.sandbox->usage()) return *usage;
  const std::lock_guard lock(usage_mutex_);
  return last_;
}

std::int64_t Session::disk_used() const {
  const sandbox::Fd work(::openat(root_fd(), "work", O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  struct statfs files {};
  if (!work || ::fstatfs(work.get(), &files) != 0) return 0;
  return static_cast<std::int64_t>(files.f_blocks - files.f_bfree) * files.f_bsize;
}

}  // namespace capstan::agents

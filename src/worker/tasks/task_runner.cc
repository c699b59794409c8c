// How it works: a queue of chunks and a thread for each that runs. A stop is a mark on the chunk; one thread
// kills those whose grace is over.
#include "worker/tasks/task_runner.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/log.h"
#include "worker/shim/records.h"

namespace capstan::worker {
namespace {

constexpr std::int64_t kStopLookMs = 50;

}  // namespace

TaskRunner::TaskRunner(const DataDirectory& data, Places places, TaskRunnerOptions options,
                       ReportQueue& reports)
    : data_(data), places_(std::move(places)), options_(std::move(options)), reports_(reports) {
  stopper_ = std::jthread([this](std::stop_token stop) { watch_stops(stop); });
}

TaskRunner::~TaskRunner() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
    waiting_.clear();
    for (auto& [id, chunk] : chunks_) {
      if (!chunk->ended) chunk->control.stop(true);
    }
  }
  stopper_.request_stop();
  for (auto& thread : threads_) thread.request_stop();
  changed_.notify_all();
  threads_.clear();
  stopper_ = {};
}

Result<void> TaskRunner::adopt() {
  CAPSTAN_TRY(store_, ChunkStore::open(data_));
  const std::lock_guard lock(mutex_);
  for (const StoredChunk& stored : store_->chunks()) {
    const auto chunk = std::make_shared<Chunk>();
    chunk->spec = stored.spec;
    chunks_[stored.spec.id] = chunk;
    if (stored.exit) {
      chunk->ended = true;
      chunk->exit = *stored.exit;
      chunk->report = chunk->exit.contains("retryable") ? "rank_start_failed" : "rank_exited";
      report(*chunk);
    } else {
      chunk->resumed = true;
      enqueue(chunk);
      log_info("chunk adopted", "chunk={} first={} count={}", stored.spec.id.text(), stored.spec.first,
               stored.spec.count);
    }
  }
  return {};
}

void TaskRunner::start(const Json& effect) {
  const auto spec = ChunkSpec::from_json(effect);
  if (!spec) {
    log_error("a chunk is not understood", "why={}", spec.error().message);
    return;
  }
  const auto array = ArraySpec::from_json(effect);
  const std::lock_guard lock(mutex_);
  if (const auto known = chunks_.find(spec->id); known != chunks_.end()) return report(*known->second);
  const auto chunk = std::make_shared<Chunk>();
  chunk->spec = *spec;
  chunk->resumed = spec->id.attempt > 1;
  chunks_[spec->id] = chunk;
  if (!array)
    return end(*chunk, "rank_start_failed",
               Json::object({{"message", array.error().message}, {"retryable", false}}));
  if (const auto claimed = store_->claim(*spec, effect); !claimed)
    return end(*chunk, "rank_start_failed",
               Json::object({{"message", claimed.error().message}, {"retryable", true}}));
  // Settings that may change while an array runs (its timeout, its retries) come with each chunk.
  if (const auto open = arrays_.find(spec->id.job); open != arrays_.end()) {
    const ArraySpec& before = open->second->spec;
    if (before.timeout_ms != array->timeout_ms || before.retries != array->retries) arrays_.erase(open);
  }
  enqueue(chunk);
}

void TaskRunner::enqueue(const std::shared_ptr<Chunk>& chunk) {
  waiting_.push_back(chunk);
  if (waiting_.size() > idle_ && threads_.size() < kChunksAtOnceMax)
    threads_.emplace_back([this](std::stop_token stop) { work(stop); });
  changed_.notify_all();
}

void TaskRunner::work(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    const bool some = changed_.wait(lock, stop, [this] { return !waiting_.empty(); });
    --idle_;
    if (!some || leaving_) return;
    const std::shared_ptr<Chunk> chunk = waiting_.front();
    waiting_.pop_front();
    chunk->running = true;
    report(*chunk);
    lock.unlock();
    run(*chunk);
    lock.lock();
  }
}

void TaskRunner::run(Chunk& chunk) {
  const auto failed = [&](const Error& error) {
    const bool retryable =
        error.code == Code::kUnavailable || error.code == Code::kExhausted || error.code == Code::kIo;
    const std::lock_guard lock(mutex_);
    if (leaving_) return;
    end(chunk, "rank_start_failed", Json::object({{"message", error.message}, {"retryable", retryable}}));
  };
  const auto array = array_of(chunk.spec.id.job);
  if (!array) return failed(array.error());
  const auto sandboxes = launcher();
  if (!sandboxes) return failed(sandboxes.error());
  ChunkRun run(**array, **sandboxes, options_.bin / "capstan-batch", chunk.spec);
  auto exit = run.go(chunk.control, chunk.resumed);
  if (!exit) return failed(exit.error());
  const std::lock_guard lock(mutex_);
  const bool stopped = exit->contains("stopped");
  if (stopped && leaving_) return;  // the next worker goes on with it
  end(chunk, "rank_exited", *std::move(exit));
}

// Under the lock.
void TaskRunner::end(Chunk& chunk, std::string_view type, Json exit) {
  chunk.running = false;
  chunk.ended = true;
  chunk.report = type;
  chunk.exit = std::move(exit);
  store_->ended(chunk.spec.id, chunk.exit);
  report(chunk);
  changed_.notify_all();
}

void TaskRunner::report(const Chunk& chunk) {
  if (chunk.ended) {
    reports_.push(chunk.report, chunk.spec.id, chunk.exit);
  } else if (chunk.running) {
    reports_.push("rank_started", chunk.spec.id, Json::object({{"pid", 0}}));
  }
}

Result<sandbox::Launcher*> TaskRunner::launcher() {
  const std::lock_guard lock(launching_);
  if (launcher_ == nullptr) {
    const std::string program = options_.bin / "capstan-sandbox";
    CAPSTAN_TRY(launcher_,
                sandbox::Launcher::start({.instance = options_.instance + "-tasks", .program = program}));
  }
  return launcher_.get();
}

Result<std::shared_ptr<ArrayOnHost>> TaskRunner::array_of(std::int64_t job) {
  const std::lock_guard lock(mutex_);
  if (const auto known = arrays_.find(job); known != arrays_.end()) return known->second;
  CAPSTAN_TRY(const Json effect, store_->array(job));
  CAPSTAN_TRY(ArraySpec spec, ArraySpec::from_json(effect));
  CAPSTAN_TRY(const RankUser user, resolve_user(spec.user, data_.owner()));
  const auto array = std::make_shared<ArrayOnHost>(std::move(spec), user);
  CAPSTAN_TRY(array->results, ResultsFile::open(places_, user, array->spec.name, array->spec.id()));
  CAPSTAN_TRY(const auto directory, job_directory(places_, user, array->spec.name));
  array->collected = directory / ("collected-" + array->spec.id());
  if (!array->spec.template_root.empty()) {
    CAPSTAN_TRY(array->spec.template_root, template_for(user, array->spec.template_root));
  }
  std::erase_if(arrays_, [&](const auto& entry) {
    return arrays_.size() >= kArraysOpenMax && entry.second.use_count() == 1;
  });
  arrays_[job] = array;
  return array;
}

// The launcher opens a template as root, by its name, and keeps what it made of it. So it gets a name that no
// one can redirect: a descriptor that was opened with the user's rights and stays open, the same for the same
// directory.
Result<std::string> TaskRunner::template_for(const RankUser& user, const std::string& path) {
  Descriptor root;
  {
    const AsUser as(user);
    root = Descriptor(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  struct stat status {};
  if (!root || ::fstat(root.get(), &status) != 0)
    return fail_errno("user " + user.name + " cannot open the template " + path, errno);
  const auto known = templates_.find({status.st_dev, status.st_ino});
  if (known == templates_.end() && templates_.size() >= kTemplatesMax)
    return fail(Code::kInvalid, "this host already has {} templates; the next worker process forgets them",
                kTemplatesMax);
  const Descriptor& kept =
      known != templates_.end()
          ? known->second
          : templates_.emplace(std::pair(status.st_dev, status.st_ino), std::move(root)).first->second;
  return fmt::format("/proc/self/fd/{}/.", kept.get());
}

bool TaskRunner::stop(const RankId& id, std::int64_t grace_ms) {
  const std::lock_guard lock(mutex_);
  const auto known = chunks_.find(id);
  if (known == chunks_.end()) return false;
  Chunk& chunk = *known->second;
  if (chunk.ended) {
    report(chunk);
    return true;
  }
  log_info("stopping chunk", "chunk={} grace_ms={}", id.text(), grace_ms);
  chunk.control.stop(false);
  // What a batch has not done, it has not begun.
  const auto array = arrays_.find(id.job);
  if (array != arrays_.end() && array->second->spec.batch > 1) grace_ms = 0;
  const std::int64_t kill_at_ms = shim::monotonic_ms() + grace_ms;
  chunk.kill_at_ms = chunk.stopping ? std::min(chunk.kill_at_ms, kill_at_ms) : kill_at_ms;
  chunk.stopping = true;
  changed_.notify_all();
  return true;
}

void TaskRunner::stop_all() {
  std::vector<RankId> live;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, chunk] : chunks_) {
      if (!chunk->ended) live.push_back(id);
    }
  }
  for (const RankId& id : live) stop(id, 0);
}

// Kills what is still running when its grace is over.
void TaskRunner::watch_stops(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  const auto any = [this] {
    return std::any_of(chunks_.begin(), chunks_.end(),
                       [](const auto& entry) { return entry.second->stopping && !entry.second->ended; });
  };
  while (changed_.wait(lock, stop, any)) {
    const std::int64_t now_ms = shim::monotonic_ms();
    for (auto& [id, chunk] : chunks_) {
      if (chunk->stopping && !chunk->ended && now_ms >= chunk->kill_at_ms) chunk->control.stop(true);
    }
    changed_.wait_for(lock, stop, std::chrono::milliseconds(kStopLookMs), [] { return false; });
  }
}

bool TaskRunner::forget(const RankId& id) {
  const std::lock_guard lock(mutex_);
  const auto known = chunks_.find(id);
  if (known == chunks_.end()) return false;
  if (known->second->ended) {
    chunks_.erase(known);
    store_->forget(id);
  }
  return true;
}

void TaskRunner::add_ranks(Json& list) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, chunk] : chunks_) {
    list.push_back(id.with_state(chunk->ended ? "exited" : chunk->running ? "running" : "starting"));
  }
}

std::size_t TaskRunner::unended() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(
      std::count_if(chunks_.begin(), chunks_.end(), [](const auto& entry) { return !entry.second->ended; }));
}

Result<Descriptor> TaskRunner::results_of(std::int64_t job) {
  CAPSTAN_TRY(const Json effect, store_->array(job));
  CAPSTAN_TRY(const ArraySpec spec, ArraySpec::from_json(effect));
  CAPSTAN_TRY(const RankUser user, resolve_user(spec.user, data_.owner()));
  CAPSTAN_TRY(const auto path, ResultsFile::path_of(places_, user, spec.name, spec.id()));
  const AsUser as(user);
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) return fail_errno("cannot open " + path.string(), errno);
  return file;
}

}  // namespace capstan::worker

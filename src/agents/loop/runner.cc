// How: a few threads take episodes from a list. Locks on the output directory keep two runs apart, but for
// shards.
#include "agents/loop/runner.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/file.h"

namespace capstan::agents::loop {
namespace {

constexpr std::int64_t kFailuresMax =
    20;  // without one success between: the server or the sandbox is gone for good

std::int64_t unix_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

class DirectoryLock {
 public:
  static Result<DirectoryLock> take(const std::filesystem::path& directory, const std::string& name,
                                    int kind) {
    const std::string path = directory / name;
    DirectoryLock lock;
    lock.fd_ = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (lock.fd_ < 0) return fail_errno("cannot open " + path, errno);
    if (::flock(lock.fd_, kind | LOCK_NB) != 0) {
      return fail(Code::kConflict, "another run is writing into {}", directory.string());
    }
    return lock;
  }
  DirectoryLock() = default;
  DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~DirectoryLock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  int fd_ = -1;
};

// 1 - C(n-c,k) / C(n,k), as a product.
double pass_at(std::int64_t n, std::int64_t c, std::int64_t k) {
  if (n - c < k) return 1;
  double none = 1;
  for (std::int64_t i = n - c + 1; i <= n; ++i) none *= 1 - static_cast<double>(k) / static_cast<double>(i);
  return 1 - none;
}

void add_pass_at(const std::vector<EpisodeResult>& results, std::size_t tasks, Summary& out) {
  std::vector<std::pair<std::int64_t, std::int64_t>> counts(tasks);  // n, c of each task
  for (const EpisodeResult& result : results) {
    ++counts[result.key.task].first;
    counts[result.key.task].second += result.end.passed;
  }
  std::int64_t most = counts.empty() ? 0 : counts.front().first;
  for (const auto& [n, c] : counts) most = std::min(most, n);
  for (std::int64_t k = 1; k <= most; k = k == most ? most + 1 : std::min(k * 2, most)) {
    double sum = 0;
    for (const auto& [n, c] : counts) sum += pass_at(n, c, k);
    out.pass_at.emplace_back(k, sum / static_cast<double>(tasks));
  }
}

}  // namespace

Summary summarize(const std::vector<EpisodeResult>& results, std::size_t tasks) {
  Summary out;
  double sum = 0;
  for (const EpisodeResult& result : results) {
    const End& end = result.end;
    ++out.episodes;
    out.earlier += result.earlier;
    out.passed += end.passed;
    if (end.score) ++out.scored, sum += *end.score;
    ++out.reasons[end.reason];
    out.tokens += end.tokens;
    out.pico_dollars += end.pico_dollars;
    out.steps += end.steps;
    out.attempts += end.attempts;
    out.cpu_us += end.cpu_us;
  }
  // An episode whose scorer gave no number counts as 0: a crash must not raise the mean.
  if (out.scored > 0) out.mean_score = sum / static_cast<double>(out.episodes);
  add_pass_at(results, tasks, out);
  return out;
}

Json Summary::to_json() const {
  Json out =
      Json::object({{"episodes", episodes}, {"wanted", wanted}, {"failed", failed}, {"passed", passed}});
  if (!failure.empty()) out["failure"] = failure;
  out["mean_score"] = scored > 0 ? Json(mean_score) : Json();
  out["pass_at"] = Json::object();
  for (const auto& [k, share] : pass_at) out["pass_at"][std::to_string(k)] = share;
  out["reasons"] = Json::object();
  for (const auto& [reason, count] : reasons) out["reasons"][reason] = count;
  out["tokens"] = Json::object({{"input", tokens.input},
                                {"cached", tokens.cached},
                                {"output", tokens.output},
                                {"reasoning", tokens.reasoning}});
  out["dollars"] = static_cast<double>(pico_dollars) / 1e12;
  out["steps"] = steps;
  out["attempts"] = attempts;
  out["cpu_ms"] = cpu_us / 1000;
  return out;
}

Runner::Runner(const AgentsSpec& spec, RunnerOptions options)
    : spec_(spec),
      options_(std::move(options)),
      model_(spec.agent.model.api, options_.server, options_.key) {}

std::filesystem::path Runner::path_of(const EpisodeKey& key) const {
  const std::filesystem::path output = spec_.output;
  if (spec_.array) return output / "episodes" / fmt::format("{:05d}-{:04d}.jsonl", key.task, key.episode);
  for (int number = 1;; ++number) {
    auto path = output / fmt::format("{}.jsonl", number);
    if (!std::filesystem::exists(path)) return path;
  }
}

Result<void> Runner::find_earlier() {
  std::int64_t number = 0;
  for (std::size_t task = 0; task < spec_.tasks.size(); ++task) {
    for (std::int64_t episode = 0; episode < spec_.episodes; ++episode) {
      if (number++ % options_.shard.count != options_.shard.index) continue;
      const EpisodeKey key{task, episode};
      const auto path = path_of(key);
      if (!std::filesystem::exists(path)) {
        waiting_.push_back(key);
        continue;
      }
      CAPSTAN_TRY(const Recording recording, read_recording(path));
      if (recording.spec_hash != spec_.episode(task, episode).hash()) {
        return fail(Code::kConflict,
                    "{} was recorded with another spec; set another 'output', or remove the directory to run "
                    "all again",
                    path.string());
      }
      results_.push_back({key, recording.end, path, true, 0});
    }
  }
  std::ranges::reverse(waiting_);
  return {};
}

std::int64_t Runner::wanted() const {
  const std::int64_t all = spec_.array ? spec_.episode_count() : 1;
  return (all - options_.shard.index + options_.shard.count - 1) / options_.shard.count;
}

Result<EpisodeResult> Runner::record(const AgentSpec& episode, const EpisodeKey& key,
                                     const std::filesystem::path& path) {
  const RecordingHead head{static_cast<std::int64_t>(key.task), key.episode, unix_ms(), options_.server};
  CAPSTAN_TRY(auto writer, RecordingWriter::create(path, episode, head));
  CAPSTAN_TRY(auto tools, Toolbox::open(*options_.launcher, episode.sandbox));
  LiveWorld world(model_, std::move(tools), spec_.array ? OnPiece{} : options_.events.on_piece);
  {
    const std::scoped_lock lock(mutex_);
    if (stopped_) return fail(Code::kCancelled, "stopped");
    running_.push_back(&world);
    if (options_.events.on_begin) options_.events.on_begin(key);
  }
  auto end = run_episode(episode, world, [&](const Step& step) {
    writer->add(step);
    const std::scoped_lock lock(mutex_);
    if (options_.events.on_step) options_.events.on_step(key, step);
  });
  {
    const std::scoped_lock lock(mutex_);
    std::erase(running_, &world);
  }
  if (!end) return std::unexpected(std::move(end.error()));
  if (stopped_) return fail(Code::kCancelled, "stopped");  // its sandbox may have been killed under it
  CAPSTAN_CHECK(writer->finish(*end));
  return EpisodeResult{key, *std::move(end), path, false, world.memory_mib_ms()};
}

Result<void> Runner::run_one(const EpisodeKey& key) {
  const auto path = path_of(key);
  CAPSTAN_TRY(EpisodeResult result, record(spec_.episode(key.task, key.episode), key, path));
  const std::scoped_lock lock(mutex_);
  results_.push_back(std::move(result));
  if (options_.events.on_end) options_.events.on_end(results_.back());
  return {};
}

void Runner::work() {
  for (std::int64_t failures = 0; failures < kFailuresMax && !stopped_;) {
    EpisodeKey key;
    {
      const std::scoped_lock lock(mutex_);
      if (waiting_.empty()) return;
      key = waiting_.back();
      waiting_.pop_back();
    }
    const auto ran = run_one(key);
    failures = ran ? 0 : failures + 1;
    if (ran) continue;
    const std::scoped_lock lock(mutex_);
    ++failed_;
    if (failure_.empty()) failure_ = ran.error().message;
  }
}

Result<Summary> Runner::run() {
  const auto began = std::chrono::steady_clock::now();
  CAPSTAN_CHECK(make_directories(spec_.array ? std::filesystem::path(spec_.output) / "episodes"
                                             : std::filesystem::path(spec_.output)));
  const bool sharded = options_.shard.count > 1;
  CAPSTAN_TRY(const DirectoryLock lock,
              DirectoryLock::take(spec_.output, ".lock", sharded ? LOCK_SH : LOCK_EX));
  CAPSTAN_TRY(
      const DirectoryLock own,
      DirectoryLock::take(spec_.output,
                          fmt::format(".lock-{}-{}", options_.shard.index, options_.shard.count), LOCK_EX));
  if (spec_.array) {
    CAPSTAN_CHECK(find_earlier());
  } else {
    waiting_ = {EpisodeKey{}};
  }
  const auto workers = std::min<std::size_t>(static_cast<std::size_t>(spec_.concurrency), waiting_.size());
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < workers; ++i) threads.emplace_back([this] { work(); });
  threads.clear();  // waits
  std::ranges::sort(results_, {}, &EpisodeResult::key);
  Summary summary = summarize(results_, spec_.tasks.size());
  summary.wanted = wanted();
  summary.failed = failed_;
  summary.failure = failure_;
  summary.wall_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began).count();
  if (spec_.array && !sharded) {
    CAPSTAN_CHECK(write_file_atomic(std::filesystem::path(spec_.output) / "summary.json",
                                    summary.to_json().pretty() + "\n"));
  }
  return summary;
}

void Runner::stop() {
  stopped_ = true;
  model_.cancel();
  const std::scoped_lock lock(mutex_);
  for (LiveWorld* world : running_) world->stop();
}

}  // namespace capstan::agents::loop

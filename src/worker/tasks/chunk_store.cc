#include "worker/tasks/chunk_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <set>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "worker/shim/records.h"

namespace capstan::worker {
namespace {

constexpr const char* kLog = "chunks";
constexpr std::size_t kLinesMin = 4'096;  // below it, the log is not rewritten

std::string begin_line(const ChunkSpec& chunk) {
  return fmt::format("+ {} {} {}\n", chunk.id.text(), chunk.first, chunk.count);
}
std::string end_line(const RankId& id, const Json& exit) {
  return fmt::format("= {} {}\n", id.text(), exit.dump());
}

// What all chunks of an array share.
Json settings_of(const Json& effect) {
  Json settings = effect;
  settings["id"] = 0;
  settings["rank"] = 0;
  settings["attempt"] = 1;
  if (Json* chunk = settings.find("chunk")) {
    (*chunk)["first"] = 0;
    (*chunk)["count"] = 1;
  }
  return settings;
}

void read_line(std::string_view line, std::map<RankId, StoredChunk>& live) {
  const std::size_t space = line.find(' ', 2);
  const auto id = RankId::parse(
      line.substr(std::min<std::size_t>(2, line.size()), space == line.npos ? space : space - 2));
  if (!id) return;
  if (line[0] == '-') {
    live.erase(*id);
  } else if (line[0] == '=' && space != line.npos) {
    const auto found = live.find(*id);
    auto exit = Json::parse(line.substr(space + 1));
    if (found != live.end() && exit) found->second.exit = *std::move(exit);
  } else if (line[0] == '+' && space != line.npos) {
    const auto numbers = split(line.substr(space + 1), ' ');
    const auto first = parse_int(numbers[0]);
    const auto count = numbers.size() == 2 ? parse_int(numbers[1]) : std::nullopt;
    if (first && count) live[*id] = StoredChunk{{*id, *first, *count}, std::nullopt};
  }
}

}  // namespace

Result<std::unique_ptr<ChunkStore>> ChunkStore::open(const DataDirectory& data) {
  Descriptor worker(::fcntl(data.worker_fd(), F_DUPFD_CLOEXEC, 0));
  if (!worker) return fail_errno("cannot keep the worker's directory", errno);
  CAPSTAN_TRY(Descriptor arrays, open_own_directory(data.worker_fd(), "arrays", 0700));
  std::unique_ptr<ChunkStore> store(new ChunkStore(std::move(worker), std::move(arrays)));
  CAPSTAN_CHECK(store->load());
  CAPSTAN_CHECK(store->rewrite());
  store->prune();
  return store;
}

Result<void> ChunkStore::load() {
  const Descriptor file(::openat(worker_.get(), kLog, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file && errno == ENOENT) return {};
  if (!file) return fail_errno("cannot read the list of chunks", errno);
  std::string rest, buffer(1 << 20, '\0');
  for (ssize_t size; (size = ::read(file.get(), buffer.data(), buffer.size())) > 0;) {
    rest.append(buffer, 0, static_cast<std::size_t>(size));
    std::size_t begin = 0;
    for (std::size_t end; (end = rest.find('\n', begin)) != rest.npos; begin = end + 1)
      read_line(std::string_view(rest).substr(begin, end - begin), live_);
    rest.erase(0, begin);
  }
  return {};
}

// Only what is not past; in one step, by rename.
Result<void> ChunkStore::rewrite() {
  std::string text;
  for (const auto& [id, chunk] : live_) {
    text += begin_line(chunk.spec);
    if (chunk.exit) text += end_line(id, *chunk.exit);
  }
  if (!shim::write_durably(worker_.get(), kLog, text))
    return fail_errno("cannot write the list of chunks", errno);
  log_ = Descriptor(::openat(worker_.get(), kLog, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW));
  if (!log_) return fail_errno("cannot open the list of chunks", errno);
  lines_ = live_.size();
  return {};
}

std::vector<StoredChunk> ChunkStore::chunks() const {
  const std::lock_guard lock(mutex_);
  std::vector<StoredChunk> all;
  for (const auto& [id, chunk] : live_) all.push_back(chunk);
  return all;
}

Result<void> ChunkStore::keep_settings(const RankId& id, const Json& effect) {
  Json& known = settings_[id.job];
  if (known.is_null()) known = array(id.job).value_or(Json());
  Json settings = settings_of(effect);
  settings["token"] = known.get_string("token").value_or(random_hex(4));
  if (known == settings) return {};
  if (!shim::write_durably(arrays_.get(), fmt::format("{}.json", id.job).c_str(), settings.dump()))
    return fail_errno("cannot record a task array", errno);
  known = std::move(settings);
  return {};
}

Result<void> ChunkStore::claim(const ChunkSpec& chunk, const Json& effect) {
  const std::lock_guard lock(mutex_);
  CAPSTAN_CHECK(keep_settings(chunk.id, effect));
  const std::string line = begin_line(chunk);
  if (::write(log_.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    return fail_errno("cannot record a chunk of tasks", errno);
  live_[chunk.id] = StoredChunk{chunk, std::nullopt};
  ++lines_;
  return {};
}

// What cannot be written is found again in results files, after a crash.
void ChunkStore::write(const std::string& line) {
  if (::write(log_.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    log_warn("cannot record the end of a chunk", "errno={}", errno);
  ++lines_;
}

void ChunkStore::ended(const RankId& id, const Json& exit) {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(id);
  if (found == live_.end()) return;
  found->second.exit = exit;
  write(end_line(id, exit));
}

void ChunkStore::forget(const RankId& id) {
  const std::lock_guard lock(mutex_);
  if (live_.erase(id) == 0) return;
  write(fmt::format("- {}\n", id.text()));
  if (lines_ < kLinesMin || lines_ < 4 * live_.size()) return;
  if (const auto done = rewrite(); !done)
    log_warn("the list of chunks grows", "why={}", done.error().message);
}

Result<Json> ChunkStore::array(std::int64_t job) const {
  CAPSTAN_TRY(const std::string text, read_below(arrays_.get(), fmt::format("{}.json", job)));
  return Json::parse(text);
}

// The newest arrays stay, so that their results can be asked for.
void ChunkStore::prune() {
  std::set<std::int64_t> jobs;
  const auto names = names_below(arrays_.get());
  if (!names) return;
  for (const std::string_view name : *names) {
    if (const auto job = parse_int(name.substr(0, name.find('.')))) jobs.insert(*job);
  }
  for (const auto& [id, chunk] : live_) jobs.erase(id.job);
  for (; jobs.size() > kArraysKeptMax; jobs.erase(jobs.begin()))
    ::unlinkat(arrays_.get(), fmt::format("{}.json", *jobs.begin()).c_str(), 0);
}

}  // namespace capstan::worker

// How it works: a shard is a 40-byte header and three float arrays (parameters, first, second moment) for one
// slice [begin, end) of the flat vector. Every rank hashes what it writes and the hashes are gathered to rank
// 0, whose manifest seals them; the manifest carries a hash of itself. Nothing is trusted at load: neither
// sizes nor slices.
#include "trainer/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/text.h"

namespace capstan::trainer {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are little-endian");

constexpr char kShardMagic[8] = {'C', 'A', 'P', 'S', 'H', 'A', 'R', 'D'};
constexpr std::uint32_t kShardVersion = 1;
constexpr std::int64_t kManifestVersion = 1;
constexpr std::string_view kNamePrefix = "step-";

struct ShardHeader {
  char magic[8];
  std::uint32_t version;
  std::uint32_t reserved;
  std::uint64_t step;
  std::uint64_t begin;
  std::uint64_t end;
};
static_assert(sizeof(ShardHeader) == 40);

struct ShardRecord {  // what each rank tells rank 0 about its share
  std::uint8_t written = 0;
  std::uint8_t digest[32] = {};
};
static_assert(sizeof(ShardRecord) == 33);

ParameterRange slice_of(std::uint64_t count, int rank, int ranks) {
  const auto part = [&](int r) {
    return static_cast<std::size_t>(count * static_cast<std::uint64_t>(r) / ranks);
  };
  return {part(rank), part(rank + 1)};
}

std::string shard_name(int rank, int ranks) { return fmt::format("shard-{:05}-of-{:05}.bin", rank, ranks); }

// Writes and hashes at once, and syncs; closes itself.
class ShardWriter {
 public:
  ~ShardWriter() {
    if (fd_ >= 0) ::close(fd_);
  }
  Result<void> open(const std::filesystem::path& path) {
    path_ = path;
    fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return fd_ >= 0 ? Result<void>{} : failure();
  }
  Result<void> append(const void* bytes, std::size_t count) {
    const auto* at = static_cast<const std::uint8_t*>(bytes);
    hash_.update(std::span<const std::uint8_t>(at, count));
    while (count > 0) {
      const ssize_t wrote = ::write(fd_, at, std::min<std::size_t>(count, 8u << 20));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) return failure();
      at += wrote;
      count -= static_cast<std::size_t>(wrote);
    }
    return {};
  }
  Result<Digest> finish() {
    if (::fsync(fd_) != 0) return std::unexpected(failure().error());
    return hash_.finish();
  }

 private:
  Result<void> failure() const { return fail_errno(fmt::format("cannot write {}", path_.string()), errno); }
  std::filesystem::path path_;
  int fd_ = -1;
  Sha256 hash_;
};

Result<Digest> write_shard(const std::filesystem::path& path, const TrainState& state, ParameterRange slice) {
  ShardWriter writer;
  CAPSTAN_CHECK(writer.open(path));
  ShardHeader header{};
  std::memcpy(header.magic, kShardMagic, sizeof header.magic);
  header.version = kShardVersion;
  header.step = state.step;
  header.begin = slice.begin;
  header.end = slice.end;
  CAPSTAN_CHECK(writer.append(&header, sizeof header));
  const std::size_t bytes = (slice.end - slice.begin) * sizeof(float);
  for (const std::vector<float>* part :
       {&state.parameters, &state.optimizer.first, &state.optimizer.second}) {
    CAPSTAN_CHECK(writer.append(part->data() + slice.begin, bytes));
  }
  return writer.finish();
}

Json manifest_json(const TrainState& state, const Json& config, const std::vector<std::uint8_t>& records,
                   int world_size) {
  Json manifest = Json::object({{"format", "capstan-checkpoint"},
                                {"version", kManifestVersion},
                                {"step", state.step},
                                {"next_sample", state.next_sample},
                                {"tokens", state.tokens},
                                {"skipped_steps", state.skipped},
                                {"skipped_in_a_row", state.skipped_in_a_row},
                                {"optimizer_updates", state.optimizer.updates},
                                {"parameter_count", state.parameters.size()},
                                {"world_size", world_size},
                                {"config_hash", sha256_hex(config.dump())},
                                {"config", config},
                                {"shards", Json::array()}});
  for (int rank = 0; rank < world_size; ++rank) {
    const ParameterRange slice = slice_of(state.parameters.size(), rank, world_size);
    const std::uint8_t* digest = records.data() + static_cast<std::size_t>(rank) * sizeof(ShardRecord) + 1;
    manifest["shards"].push_back(Json::object({{"file", shard_name(rank, world_size)},
                                               {"begin", slice.begin},
                                               {"end", slice.end},
                                               {"sha256", hex({digest, 32})}}));
  }
  const std::string self = sha256_hex(manifest.dump());
  manifest["manifest_sha256"] = self;
  return manifest;
}

Result<void> sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fail_errno(fmt::format("cannot open {}", folder.string()), errno);
  const int status = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (status != 0) return fail_errno(fmt::format("cannot sync {}", folder.string()), error);
  return {};
}

// Rank 0, once all shards are durable: the manifest, then the rename that makes the checkpoint exist.
Result<void> publish(const std::filesystem::path& folder, const std::filesystem::path& unfinished,
                     const std::string& name, const Json& manifest) {
  CAPSTAN_CHECK(write_file_atomic(unfinished / "manifest.json", manifest.pretty()));
  CAPSTAN_CHECK(sync_folder(unfinished));
  std::error_code error;
  std::filesystem::remove_all(folder / name, error);  // a damaged one of the same step that was passed over
  std::filesystem::rename(unfinished, folder / name, error);
  if (error) return fail_errno(fmt::format("cannot rename {}", unfinished.string()), error.value());
  return sync_folder(folder);
}

// Tells everybody whether all ranks succeeded so far; returns the records in rank order.
Result<std::vector<std::uint8_t>> exchange(Gang& gang, const ShardRecord& mine) {
  return gang.gather_bytes({reinterpret_cast<const std::uint8_t*>(&mine), sizeof mine});
}

Result<void> check_all_written(const std::vector<std::uint8_t>& records, std::uint64_t step) {
  for (std::size_t rank = 0; rank * sizeof(ShardRecord) < records.size(); ++rank) {
    if (records[rank * sizeof(ShardRecord)] == 0) {
      return fail(Code::kIo, "no checkpoint at step {}: rank {} could not write its share", step, rank);
    }
  }
  return {};
}

std::optional<std::uint64_t> step_of_name(std::string_view name) {
  if (!name.starts_with(kNamePrefix)) return std::nullopt;
  const std::optional<std::int64_t> step = parse_int(name.substr(kNamePrefix.size()));
  if (!step || *step < 0) return std::nullopt;
  return static_cast<std::uint64_t>(*step);
}

}  // namespace

std::string checkpoint_name(std::uint64_t step) { return fmt::format("{}{:09}", kNamePrefix, step); }

Result<void> save_checkpoint(const std::filesystem::path& folder, const TrainState& state, const Json& config,
                             Gang& gang) {
  const std::string name = checkpoint_name(state.step);
  const std::filesystem::path unfinished = folder / (name + ".tmp");
  ShardRecord mine;
  Result<void> outcome = make_directories(unfinished);
  if (outcome) {
    Result<Digest> digest = write_shard(unfinished / shard_name(gang.rank(), gang.size()), state,
                                        slice_of(state.parameters.size(), gang.rank(), gang.size()));
    if (digest) {
      mine.written = 1;
      std::copy(digest->begin(), digest->end(), mine.digest);
    } else {
      outcome = std::unexpected(digest.error());
    }
  }
  CAPSTAN_TRY(const std::vector<std::uint8_t> records, exchange(gang, mine));
  Result<void> all = check_all_written(records, state.step);
  if (all && gang.rank() == 0) {
    outcome = publish(folder, unfinished, name, manifest_json(state, config, records, gang.size()));
  }
  mine.written = outcome.has_value() && all.has_value();
  CAPSTAN_TRY(const std::vector<std::uint8_t> published, exchange(gang, mine));
  if (!all) {
    std::error_code ignored;
    if (gang.rank() == 0) std::filesystem::remove_all(unfinished, ignored);
    return outcome ? all : outcome;
  }
  CAPSTAN_CHECK(std::move(outcome));
  return check_all_written(published, state.step);
}

std::vector<std::uint64_t> list_checkpoints(const std::filesystem::path& folder) {
  std::vector<std::uint64_t> steps;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (const auto step = step_of_name(entry.path().filename().string())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void prune_checkpoints(const std::filesystem::path& folder, int keep) {
  std::error_code error;
  std::vector<std::filesystem::path> unfinished;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".tmp") && step_of_name(std::string_view(name).substr(0, name.size() - 4))) {
      unfinished.push_back(entry.path());
    }
  }
  for (const auto& path : unfinished) std::filesystem::remove_all(path, error);
  const std::vector<std::uint64_t> steps = list_checkpoints(folder);
  const std::size_t surplus = steps.size() - std::min(steps.size(), static_cast<std::size_t>(keep));
  for (std::size_t i = 0; i < surplus; ++i) {
    // The manifest goes first: a removal that is cut short leaves no checkpoint that looks whole.
    std::filesystem::remove(folder / checkpoint_name(steps[i]) / "manifest.json", error);
    std::filesystem::remove_all(folder / checkpoint_name(steps[i]), error);
  }
}

}  // namespace capstan::trainer

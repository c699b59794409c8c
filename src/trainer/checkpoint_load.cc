// How it works: the manifest is parsed and checked against its own hash, then every shard against the
// manifest: length, header, hash. The slices must tile the vector exactly. Every rank reads all shards, since
// each holds the whole state; the ranks then compare which step they chose and settle on the oldest.
#include <algorithm>
#include <cstring>

#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "trainer/checkpoint.h"

namespace capstan::trainer {
namespace {

constexpr std::uint64_t kManifestBytesMax = 256u << 20;
constexpr std::uint64_t kShardHeaderBytes = 40;
constexpr std::uint64_t kParametersMax = std::uint64_t{1} << 40;

struct ShardEntry {
  std::string file;
  std::string sha256;
  ParameterRange slice;
};

Result<std::uint64_t> count_field(const Json& object, std::string_view key) {
  const std::optional<std::int64_t> value = object.get_int(key);
  if (!value || *value < 0) return fail(Code::kCorrupt, "the manifest's '{}' is missing or no count", key);
  return static_cast<std::uint64_t>(*value);
}

Result<Json> read_manifest(const std::filesystem::path& checkpoint) {
  CAPSTAN_TRY(const std::string text, read_file(checkpoint / "manifest.json", kManifestBytesMax));
  Result<Json> manifest = Json::parse(text);
  if (!manifest || !manifest->is_object()) return fail(Code::kCorrupt, "the manifest is no JSON object");
  const std::optional<std::string> claimed = manifest->get_string("manifest_sha256");
  manifest->erase("manifest_sha256");
  if (!claimed || sha256_hex(manifest->dump()) != *claimed) {
    return fail(Code::kCorrupt, "the manifest does not match its own hash");
  }
  if (manifest->get_int("version") != 1 || manifest->get_string("format") != "capstan-checkpoint") {
    return fail(Code::kUnsupported, "the manifest is of another format or a newer version");
  }
  return manifest;
}

Result<CheckpointManifest> parse_manifest(const Json& json) {
  CheckpointManifest manifest;
  CAPSTAN_TRY(manifest.state.step, count_field(json, "step"));
  CAPSTAN_TRY(manifest.state.next_sample, count_field(json, "next_sample"));
  CAPSTAN_TRY(manifest.state.tokens, count_field(json, "tokens"));
  CAPSTAN_TRY(manifest.state.skipped, count_field(json, "skipped_steps"));
  CAPSTAN_TRY(manifest.state.skipped_in_a_row, count_field(json, "skipped_in_a_row"));
  CAPSTAN_TRY(manifest.state.optimizer.updates, count_field(json, "optimizer_updates"));
  CAPSTAN_TRY(manifest.parameter_count, count_field(json, "parameter_count"));
  CAPSTAN_TRY(const std::uint64_t world_size, count_field(json, "world_size"));
  if (manifest.parameter_count > kParametersMax || world_size > (1u << 20)) {
    return fail(Code::kCorrupt, "the manifest's counts are out of range");
  }
  manifest.world_size = static_cast<int>(world_size);
  manifest.config_hash = json.get_string("config_hash").value_or("");
  if (const Json* config = json.find("config")) manifest.config = *config;
  return manifest;
}

Result<std::vector<ShardEntry>> parse_shards(const Json& json, std::uint64_t parameter_count) {
  std::vector<ShardEntry> entries;
  const Json* shards = json.find("shards");
  if (shards == nullptr || !shards->is_array()) return fail(Code::kCorrupt, "the manifest lists no shards");
  std::uint64_t covered = 0;
  for (const Json& shard : shards->items()) {
    CAPSTAN_TRY(const std::uint64_t begin, count_field(shard, "begin"));
    CAPSTAN_TRY(const std::uint64_t end, count_field(shard, "end"));
    const std::string file = shard.get_string("file").value_or("");
    if (begin != covered || end < begin || file.empty() || file.find('/') != std::string::npos) {
      return fail(Code::kCorrupt, "the manifest's shards do not tile the parameters");
    }
    covered = end;
    entries.push_back({file, shard.get_string("sha256").value_or(""), {begin, end}});
  }
  if (covered != parameter_count) return fail(Code::kCorrupt, "the manifest's shards miss parameters");
  return entries;
}

Result<void> read_shard(const std::filesystem::path& checkpoint, const ShardEntry& entry, TrainState& state) {
  const std::uint64_t count = entry.slice.end - entry.slice.begin;
  const std::uint64_t bytes = kShardHeaderBytes + 3 * count * sizeof(float);
  Result<std::string> data = read_file(checkpoint / entry.file, bytes);
  if (!data) return fail(Code::kCorrupt, "{}: {}", entry.file, data.error().message);
  if (data->size() != bytes) {
    return fail(Code::kCorrupt, "{} has {} bytes, not {}", entry.file, data->size(), bytes);
  }
  if (sha256_hex(*data) != entry.sha256) {
    return fail(Code::kCorrupt, "{} does not match its SHA-256", entry.file);
  }
  const char* at = data->data() + kShardHeaderBytes;
  for (std::vector<float>* part : {&state.parameters, &state.optimizer.first, &state.optimizer.second}) {
    std::memcpy(part->data() + entry.slice.begin, at, count * sizeof(float));
    at += count * sizeof(float);
  }
  return {};
}

constexpr double kNothing = -1;  // the folder holds no checkpoint
constexpr double kAllDamaged = -2;

// This rank's choice: the newest that verifies.
std::optional<LoadedCheckpoint> newest_valid(const std::filesystem::path& folder,
                                             const std::vector<std::uint64_t>& steps) {
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const std::filesystem::path path = folder / checkpoint_name(*step);
    Result<LoadedCheckpoint> loaded = load_checkpoint(path);
    if (loaded) return std::move(*loaded);
    log_warn("checkpoint is damaged and passed over", "path={} why={}", path.string(),
             loaded.error().message);
  }
  return std::nullopt;
}

}  // namespace

Result<LoadedCheckpoint> load_checkpoint(const std::filesystem::path& checkpoint) {
  CAPSTAN_TRY(const Json json, read_manifest(checkpoint));
  LoadedCheckpoint loaded;
  CAPSTAN_TRY(loaded.manifest, parse_manifest(json));
  CAPSTAN_TRY(const std::vector<ShardEntry> shards, parse_shards(json, loaded.manifest.parameter_count));
  loaded.state = loaded.manifest.state;
  const auto count = static_cast<std::size_t>(loaded.manifest.parameter_count);
  loaded.state.parameters.resize(count);
  loaded.state.optimizer.first.resize(count);
  loaded.state.optimizer.second.resize(count);
  for (const ShardEntry& shard : shards) CAPSTAN_CHECK(read_shard(checkpoint, shard, loaded.state));
  return loaded;
}

Result<std::optional<LoadedCheckpoint>> load_newest_checkpoint(const std::filesystem::path& folder,
                                                               Gang& gang) {
  const std::vector<std::uint64_t> steps = list_checkpoints(folder);
  std::optional<LoadedCheckpoint> mine = newest_valid(folder, steps);
  const double choice = mine ? static_cast<double>(mine->state.step) : steps.empty() ? kNothing : kAllDamaged;
  CAPSTAN_TRY(const std::vector<double> choices, gang.gather({&choice, 1}));
  const double lowest = *std::min_element(choices.begin(), choices.end());
  const double highest = *std::max_element(choices.begin(), choices.end());
  if (highest == kNothing) return std::optional<LoadedCheckpoint>{};
  if (lowest == kAllDamaged) {
    return fail(Code::kCorrupt, "every checkpoint in {} is damaged; move the folder away to start anew",
                folder.string());
  }
  if (lowest == kNothing) {
    return fail(Code::kInvalid,
                "some ranks see checkpoints in {} and some see none; all ranks need one shared folder",
                folder.string());
  }
  if (mine && choice == lowest) return mine;
  const auto agreed = static_cast<std::uint64_t>(lowest);
  log_warn("another rank could verify only an older checkpoint", "step={}", agreed);
  CAPSTAN_TRY(LoadedCheckpoint loaded, load_checkpoint(folder / checkpoint_name(agreed)));
  return std::optional<LoadedCheckpoint>(std::move(loaded));
}

}  // namespace capstan::trainer

// Sizes follow from the configuration alone (docs/engine.md, "Memory").
#include "engine/server/memory_need.h"

#include <algorithm>
#include <limits>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/kernels/packed.h"
#include "engine/model/model.h"
#include "engine/model/kv_cache.h"

namespace capstan::engine {
namespace {

constexpr int kContextLeast = 4096;
constexpr int kContextStep = 1024;

double gib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

const TensorView* find(const Checkpoint& checkpoint, std::string_view name) {
  const auto found = checkpoint.tensors().find(name);
  return found == checkpoint.tensors().end() ? nullptr : &found->second;
}

// Others are run in f32 whatever is asked for.
bool is_mxfp4(const Checkpoint& checkpoint) {
  const TensorView* gguf = find(checkpoint, "blk.0.ffn_gate_exps.weight");
  return find(checkpoint, "model.layers.0.mlp.experts.gate_up_proj_blocks") != nullptr ||
         (gguf != nullptr && gguf->dtype == DType::kMxfp4);
}

std::uint64_t weight_bytes(const Checkpoint& checkpoint, std::string_view arithmetic) {
  if (arithmetic == "f32" || !is_mxfp4(checkpoint)) return checkpoint.file_bytes();
  const TensorView* head = find(checkpoint, "output.weight");
  PackedType dense = head != nullptr && head->dtype == DType::kQ8_0 ? PackedType::kInt8 : PackedType::kInt10;
  for (const PackedType type : {PackedType::kInt12, PackedType::kInt10, PackedType::kInt8, PackedType::kInt4}) {
    if (arithmetic == packed_type_name(type)) dense = type;
  }
  const ModelConfig& config = checkpoint.config();
  const auto how = model_options(arithmetic, 0);
  const bool screened = wants_screen(how ? how->pack : PackOptions{}, config.vocab);
  const std::uint64_t screen = screened ? packed_bytes(PackedType::kMxfp4, config.vocab, config.hidden) : 0;
  const std::uint64_t attention = packed_bytes(dense, config.q_dim() + 2 * config.kv_dim(), config.hidden) +
                                  packed_bytes(dense, config.hidden, config.q_dim());
  const std::uint64_t expert = packed_bytes(PackedType::kMxfp4, 2 * config.intermediate, config.hidden) +
                               packed_bytes(PackedType::kMxfp4, config.hidden, config.intermediate);
  return static_cast<std::uint64_t>(config.layers) * (attention + static_cast<std::uint64_t>(config.experts) * expert) +
         packed_bytes(dense, config.vocab, config.hidden) + screen;
}

// A number that stands alone in a file; nullopt if it is absent or "max".
std::optional<std::uint64_t> number_in(const char* path) {
  const auto text = read_file(path, 4096);
  if (!text) return std::nullopt;
  const auto value = parse_int(trim(*text));
  return value && *value >= 0 ? std::optional(static_cast<std::uint64_t>(*value)) : std::nullopt;
}

// limit - (used - page cache that may go)
std::uint64_t group_room(const char* limit_path, const char* used_path, const char* stat_path, std::string_view cache_key) {
  const auto limit = number_in(limit_path);
  const auto used = number_in(used_path);
  if (!limit || !used) return std::numeric_limits<std::uint64_t>::max();
  std::uint64_t cache = 0;
  if (const auto stat = read_file(stat_path, 1 << 16)) {
    for (const std::string_view line : split(*stat, '\n')) {
      if (line.starts_with(cache_key) && line.size() > cache_key.size() && line[cache_key.size()] == ' ')
        cache = static_cast<std::uint64_t>(parse_int(trim(line.substr(cache_key.size() + 1))).value_or(0));
    }
  }
  const std::uint64_t held = *used - std::min(*used, cache);
  return *limit - std::min(*limit, held);
}

}  // namespace

MemoryNeed memory_need(const Checkpoint& checkpoint, const MemoryQuestion& question, int context) {
  const ModelConfig& config = checkpoint.config();
  MemoryNeed need{.weights = weight_bytes(checkpoint, question.arithmetic)};
  // Keys and values are f16, in f32 arithmetic f32.
  const std::uint64_t position = (question.arithmetic == "f32" || !is_mxfp4(checkpoint) ? 8u : 4u) *
                                 static_cast<std::uint64_t>(config.kv_dim());
  const int window = std::min(context, config.sliding_window + KvCache::kChunkTokensMax + 128);
  for (const LayerType type : config.layer_types)
    need.kv += position * static_cast<std::uint64_t>(type == LayerType::kSlidingAttention ? window : context);
  if (question.kv_bytes > 0) need.kv = question.kv_bytes;
  need.working = 2048ull * static_cast<std::uint64_t>(config.experts_per_token) *
                     static_cast<std::uint64_t>(2 * config.hidden + 3 * config.intermediate) +
                 4ull * static_cast<std::uint64_t>(question.sequences) * static_cast<std::uint64_t>(config.vocab);
  return need;
}

std::uint64_t memory_available() {
  std::uint64_t available = std::numeric_limits<std::uint64_t>::max();
  if (const auto text = read_file("/proc/meminfo", 1 << 16)) {
    for (const std::string_view line : split(*text, '\n')) {
      constexpr std::string_view kKey = "MemAvailable:";
      if (!line.starts_with(kKey)) continue;
      const std::string_view value = trim(line.substr(kKey.size()));
      available = static_cast<std::uint64_t>(parse_int(value.substr(0, value.find(' '))).value_or(0)) * 1024;
    }
  }
  return std::min({available,
                   group_room("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
                              "file"),
                   group_room("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                              "/sys/fs/cgroup/memory/memory.stat", "total_cache")});
}

Result<int> context_that_fits(const Checkpoint& checkpoint, const MemoryQuestion& question, std::uint64_t available) {
  const int whole = checkpoint.config().positions_max;
  if (question.context > whole)
    return fail(Code::kInvalid, "a context of {} tokens is longer than the model's {}", question.context, whole);
  const auto fits = [&](int context) { return memory_need(checkpoint, question, context).total() <= available; };
  const int wanted = question.context > 0 ? question.context : whole;
  if (fits(wanted)) return wanted;
  const int least = question.context > 0 ? std::min(question.context, kContextLeast) : std::min(whole, kContextLeast);
  int possible = wanted / kContextStep * kContextStep;
  while (possible > least && !fits(possible)) possible -= kContextStep;
  possible = std::max(possible, least);
  const bool some = fits(possible);
  if (some && question.context == 0) {
    log_warn("memory is short: the context is smaller than the model's", "context={} model={} available_gib={:.1f}",
             possible, whole, gib(available));
    return possible;
  }
  const int shown = some ? wanted : possible;
  if (question.kv_bytes > 0) {
    const MemoryNeed need = memory_need(checkpoint, question, shown);
    return fail(Code::kExhausted,
                "{} needs {:.1f} GiB of memory: {:.1f} for weights, {:.1f} for keys and values as --kv-bytes asks, {:.1f} to "
                "work in; {:.1f} GiB are available; --kv-bytes of at most {} would fit",
                checkpoint.files().shown(), gib(need.total()), gib(need.weights), gib(need.kv), gib(need.working),
                gib(available), need.kv_room(available));
  }
  const MemoryNeed need = memory_need(checkpoint, question, shown);
  return fail(Code::kExhausted,
              "{} needs {:.1f} GiB of memory: {:.1f} for weights, {:.1f} for the KV cache of {} tokens, {:.1f} to work in; "
              "{:.1f} GiB are available{}",
              checkpoint.files().shown(), gib(need.total()), gib(need.weights), gib(need.kv), shown, gib(need.working),
              gib(available), some ? fmt::format("; --context {} would fit", possible) : "");
}

}  // namespace capstan::engine

// Model checks what callers give, cuts a step into flat batches of at most kChunkTokensMax tokens (a sequence
// at most once in each), runs them, and advances the caches after each.
#include "engine/model/model.h"

#include <unistd.h>

#include <algorithm>

#include "base/assert.h"
#include "engine/model/forward.h"
#include "engine/model/weights.h"

namespace capstan::engine {
namespace {

Result<void> check_memory(const ModelFiles& files, std::uint64_t weight_bytes) {
  const std::uint64_t memory = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                               static_cast<std::uint64_t>(sysconf(_SC_PAGE_SIZE));
  if (weight_bytes <= memory) return {};
  return fail(Code::kExhausted, "{} needs {:.1f} GiB of memory for its weights; this machine has {:.1f} GiB",
              files.shown(), static_cast<double>(weight_bytes) / (1 << 30),
              static_cast<double>(memory) / (1 << 30));
}

Result<void> check_step(const SequenceStep& step, const ModelConfig& config) {
  if (step.tokens.empty()) return fail(Code::kInvalid, "a step needs at least one token");
  const std::size_t length = step.kv->length() + step.tokens.size();
  if (length > static_cast<std::size_t>(config.positions_max)) {
    return fail(Code::kInvalid, "{} tokens exceed the model's {} positions (max_position_embeddings)", length,
                config.positions_max);
  }
  for (TokenId token : step.tokens) {
    if (token < 0 || token >= config.vocab) {
      return fail(Code::kInvalid, "token {} is outside the vocabulary of {}", token, config.vocab);
    }
  }
  return {};
}

}  // namespace

struct Model::State {
  ModelConfig config;
  Weights weights;
  ThreadPool pool;
  std::unique_ptr<PackedStore> packed;  // null in f32
  Forward forward;
  std::vector<Segment> segments;
  bool keeps_inputs = false;  // of the head, of the step under way

  State(ModelConfig the_config, Weights the_weights, int threads)
      : config(std::move(the_config)),
        weights(std::move(the_weights)),
        pool(threads),
        forward(config, weights, pool) {}

  // Runs what is in `segments` and appends the wanted logits.
  Result<void> flush(Logits& logits) {
    if (segments.empty()) return {};
    std::size_t wanted = 0;
    for (const Segment& segment : segments) {
      const int count = static_cast<int>(segment.tokens.size());
      if (!segment.kv->reserve(count)) {
        segments.clear();
        return fail(Code::kExhausted, "no memory is left for the keys and values of {} tokens", count);
      }
      wanted += segment.wanted;
    }
    const std::size_t before = logits.values.size();
    logits.values.resize(before + wanted * config.vocab);
    forward.run(segments, logits.values.data() + before);
    if (keeps_inputs) logits.inputs.insert(logits.inputs.end(), forward.head_inputs().begin(), forward.head_inputs().end());
    for (const Segment& segment : segments) segment.kv->advance(static_cast<int>(segment.tokens.size()));
    segments.clear();
    return {};
  }
};

Result<ModelOptions> model_options(std::string_view arithmetic, int threads) {
  ModelOptions out{.threads = threads};
  if (arithmetic == "f32") return out;
  out.arithmetic = Arithmetic::kInteger;
  if (arithmetic == "default") return out;
  for (const PackedType type :
       {PackedType::kInt12, PackedType::kInt10, PackedType::kInt8, PackedType::kInt4}) {
    out.pack.dense = type;
    if (arithmetic == packed_type_name(type)) return out;
  }
  return fail(Code::kInvalid, "no arithmetic is called '{}'; there are default, f32, int12, int10, int8, int4", arithmetic);
}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;

Result<std::unique_ptr<Model>> Model::load(const std::filesystem::path& path, ModelOptions options) {
  CAPSTAN_TRY(Checkpoint checkpoint, Checkpoint::open(path));
  const ModelFiles files = checkpoint.files();
  ModelConfig config = checkpoint.config();
  if (options.yarn_truncate) config.rope.scaling.truncate = *options.yarn_truncate;
  CAPSTAN_CHECK(check_memory(files, checkpoint.file_bytes()));
  auto weights = bind_weights(std::move(checkpoint));
  if (!weights) return std::unexpected(std::move(weights.error()).with_context(files.shown()));
  auto state = std::make_unique<State>(std::move(config), std::move(*weights), options.threads);
  if (options.arithmetic == Arithmetic::kInteger) {
    CAPSTAN_TRY(state->packed,
                PackedStore::open(state->weights, options.pack, state->pool, options.progress));
  }
  return std::unique_ptr<Model>(new Model(std::move(state)));
}

const ModelConfig& Model::config() const { return state_->config; }
std::uint64_t Model::weight_bytes() const { return state_->weights.checkpoint.file_bytes(); }
int Model::threads() const { return state_->pool.threads(); }
std::string Model::arithmetic() const {
  return state_->packed == nullptr ? "f32" : std::string(packed_type_name(state_->weights.packed_head.type));
}
KvType Model::kv_type() const { return state_->packed == nullptr ? KvType::kF32 : KvType::kF16; }
std::uint64_t Model::packed_bytes() const { return state_->packed == nullptr ? 0 : state_->packed->bytes(); }

std::string Model::expert_storage() const {
  switch (state_->weights.layers[0].gate_up[0].type) {
    case WeightType::kMxfp4:
    case WeightType::kGgufMxfp4:
      return "mxfp4";
    case WeightType::kBf16:
      return "bf16";
    case WeightType::kF16:
      return "f16";
    case WeightType::kF32:
      return "f32";
    case WeightType::kQ8_0:
      return "q8_0";
  }
  return "f32";
}

std::uint64_t Model::bytes_per_token() const {
  const auto of = [](const WeightView& weight, const PackedMatrix& packed) -> std::uint64_t {
    if (packed.data != nullptr) return engine::packed_bytes(packed.type, packed.rows, packed.cols);
    const std::uint64_t bytes = static_cast<std::uint64_t>(weight.rows) * row_bytes(weight.type, weight.cols);
    return weight.type == WeightType::kMxfp4 ? bytes * 17 / 16 : bytes;
  };
  const Weights& weights = state_->weights;
  const auto k = static_cast<std::uint64_t>(state_->config.experts_per_token);
  std::uint64_t sum = of(weights.head, screens() ? weights.head_screen : weights.packed_head);
  for (const LayerWeights& layer : weights.layers) {
    for (const Linear* linear : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.router})
      sum += of(linear->weight, linear->packed);
    const PackedMatrix none;
    sum += k * of(layer.gate_up[0], layer.packed_gate_up.empty() ? none : layer.packed_gate_up[0]);
    sum += k * of(layer.down[0], layer.packed_down.empty() ? none : layer.packed_down[0]);
  }
  return sum;
}

Result<void> Model::step(std::span<const SequenceStep> steps, Logits& logits) {
  State& s = *state_;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    CAPSTAN_ASSERT(steps[i].kv != nullptr);
    for (std::size_t j = 0; j < i; ++j) CAPSTAN_ASSERT(steps[i].kv != steps[j].kv);
    CAPSTAN_CHECK(check_step(steps[i], s.config));
  }
  logits.vocab = s.config.vocab;
  logits.values.clear();
  logits.inputs.clear();
  s.keeps_inputs = screens() && std::ranges::any_of(steps, &SequenceStep::screened);
  int batched = 0;
  for (const SequenceStep& step : steps) {
    for (std::size_t done = 0; done < step.tokens.size();) {
      const std::size_t room = KvCache::kChunkTokensMax - batched;
      const std::size_t count = std::min(room, step.tokens.size() - done);
      const bool last = done + count == step.tokens.size();
      const int wanted = step.logits == LogitsOf::kAll ? static_cast<int>(count) : step.logits == LogitsOf::kLast && last ? 1 : 0;
      s.segments.push_back({step.tokens.subspan(done, count), step.kv, batched, wanted, step.screened});
      done += count;
      batched += static_cast<int>(count);
      if (batched == KvCache::kChunkTokensMax) {
        CAPSTAN_CHECK(s.flush(logits));
        batched = 0;
      }
    }
  }
  return s.flush(logits);
}

bool Model::screens() const { return state_->weights.head_screen.data != nullptr; }

ScreenedLogits Model::screened(Logits& logits, int row) {
  const auto at = static_cast<std::size_t>(row), vocab = static_cast<std::size_t>(logits.vocab);
  const std::size_t hidden = static_cast<std::size_t>(state_->config.hidden);
  CAPSTAN_ASSERT(screens() && logits.inputs.size() >= (at + 1) * hidden);
  const float* input = logits.inputs.data() + at * hidden;
  return {std::span(logits.values).subspan(at * vocab, vocab), state_->weights.screen_doubts,
          [this, input](std::span<const int> panels, float* out) { state_->forward.head_panels(input, panels, out); }};
}

Result<Logits> Model::forward(std::span<const TokenId> tokens, KvCache& kv, LogitsOf wanted) {
  const SequenceStep step{.tokens = tokens, .kv = &kv, .logits = wanted};
  Logits logits;
  CAPSTAN_CHECK(this->step(std::span(&step, 1), logits));
  return logits;
}

}  // namespace capstan::engine

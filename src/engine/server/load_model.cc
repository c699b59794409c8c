// The cheap files first, so that a wrong directory is told at once.
#include "engine/server/load_model.h"

#include <algorithm>
#include <chrono>

#include "base/file.h"
#include "engine/batching/generator.h"
#include "engine/server/load_tokenizer.h"
#include "engine/server/memory_need.h"

namespace capstan::engine {
namespace {

constexpr int kContextMin = 1024;  // below, a server is of no use

class GeneratorSource : public TokenSource {
 public:
  GeneratorSource(std::unique_ptr<Model> model, BatchOptions options)
      : model_(std::move(model)), prefix_cache_(options.prefix_cache) {
    options.report = &report_;
    generator_ = Generator::start(*model_, options);
  }
  Result<RequestId> submit(GenerationRequest request) override {
    return generator_->submit(std::move(request));
  }
  void cancel(RequestId id) override { generator_->cancel(id); }
  BatchStats stats() const override { return generator_->stats(); }
  const KvReport* kv_report() const override { return prefix_cache_ ? &report_ : nullptr; }

 private:
  std::unique_ptr<Model> model_;
  bool prefix_cache_;
  KvReport report_{std::stoull(random_hex(8), nullptr, 16)};
  std::unique_ptr<Generator> generator_;
};

struct Fit {
  int context = 0;
  std::uint64_t kv_room = 0;  // what the weights and the working memory leave
};

Result<Fit> what_fits(const LoadOptions& options) {
  CAPSTAN_TRY(const Checkpoint checkpoint, Checkpoint::open(options.model));
  const MemoryQuestion question{.arithmetic = options.arithmetic,
                                .context = options.context,
                                .sequences = options.sequences_max,
                                .kv_bytes = options.kv_bytes};
  const std::uint64_t available = options.memory_available > 0 ? options.memory_available : memory_available();
  CAPSTAN_TRY(const int context, context_that_fits(checkpoint, question, available));
  return Fit{context, memory_need(checkpoint, question, context).kv_room(available)};
}

std::vector<TokenId> stop_tokens(const ModelConfig& config, const harmony::FormatTokens& format) {
  std::vector<TokenId> stops = config.eos_token_ids;
  for (const TokenId token : {format.return_, format.call, format.end_of_text}) {
    if (token >= 0 && std::ranges::find(stops, token) == stops.end()) stops.push_back(token);
  }
  // A file that lists <|end|> as an end of sequence would cut every answer off behind its analysis.
  std::erase(stops, format.end);
  return stops;
}

}  // namespace

Result<ServedModel> load_served_model(const LoadOptions& options, const EngineServer::Progress& progress) {
  progress({"reading the tokenizer"});
  CAPSTAN_TRY(const ModelFiles files, find_model_files(options.model));
  CAPSTAN_TRY(harmony::Tokenizer tokenizer, load_tokenizer(files));
  CAPSTAN_TRY(const harmony::FormatTokens format, harmony::FormatTokens::of(tokenizer));
  CAPSTAN_TRY(ModelProfile profile, read_model_profile(files.directory));
  progress({"mapping the weights"});
  CAPSTAN_TRY(const Fit fit, what_fits(options));
  CAPSTAN_TRY(ModelOptions how, model_options(options.arithmetic, options.threads));
  how.yarn_truncate = options.yarn_truncate;
  how.progress = [&progress](std::uint64_t done, std::uint64_t total) {
    progress({"packing the weights, once for this checkpoint", done, total});
  };
  CAPSTAN_TRY(std::unique_ptr<Model> model, Model::load(options.model, std::move(how)));
  const ModelConfig config = model->config();
  if (tokenizer.vocabulary_size() > config.vocab) {
    return fail(Code::kInvalid, "{}: the tokenizer has ids up to {}, but the model only {} rows",
                files.shown(), tokenizer.vocabulary_size() - 1, config.vocab);
  }
  const auto now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch());
  BatchOptions batch{.sequences_max = options.sequences_max,
                     .queue_max = options.queue_max,
                     .context_max = fit.context,
                     .kv_bytes_max = options.kv_bytes,
                     .prefix_cache = options.prefix_cache,
                     .boundary_token = format.start,
                     .speculation_tokens_max = options.speculation_tokens};
  if (batch.kv_bytes_max == 0) batch.kv_bytes_max = std::min(default_kv_bytes(*model, batch), fit.kv_room);
  batch = resolve(*model, batch);
  if (batch.context_max < (options.context > 0 ? options.context : std::min(fit.context, kContextMin))) {
    return fail(Code::kExhausted,
                "keys and values may take {} MiB, which holds a context of {} tokens: a larger --kv-bytes or a smaller --context "
                "would be right",
                batch.kv_bytes_max >> 20, batch.context_max);
  }
  auto source = std::make_unique<GeneratorSource>(std::move(model), batch);
  return ServedModel{.name = options.name,
                     .created_s = now.count(),
                     .profile = profile,
                     .tokenizer = std::move(tokenizer),
                     .format = format,
                     .context = batch.context_max,
                     .vocabulary = config.vocab,
                     .stop_tokens = stop_tokens(config, format),
                     .source = std::move(source)};
}

}  // namespace capstan::engine

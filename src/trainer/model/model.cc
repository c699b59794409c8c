// Model picks the element type of matrix products and checks what the caller promised.
#include "trainer/model/model.h"

#include "base/assert.h"
#include "trainer/model/passes.h"

namespace capstan::trainer {
namespace {

void check(const ModelConfig& c) {
  CAPSTAN_ASSERT(c.layers > 0 && c.hidden > 0 && c.intermediate > 0 && c.vocab > 0 && c.context_max > 0);
  CAPSTAN_ASSERT(c.kv_heads > 0 && c.heads > 0 && c.heads % c.kv_heads == 0);
  CAPSTAN_ASSERT(c.head_dim > 0 && c.head_dim % 2 == 0 && c.sliding_window > 0);
  CAPSTAN_ASSERT(c.experts_per_token > 0 && c.experts_per_token <= c.experts);
}

}  // namespace

class Model::Impl {
 public:
  Impl(const ModelConfig& config, Precision asked)
      : size(ParameterLayout(config).size()),
        vocab(static_cast<std::size_t>(config.vocab)),
        precision(asked == Precision::kBf16 && Gemm::has_bf16() ? Precision::kBf16 : Precision::kF32) {
    if (precision == Precision::kBf16) {
      passes = std::make_unique<Passes<Bf16>>(config);
    } else {
      passes = std::make_unique<Passes<float>>(config);
    }
  }
  std::size_t size, vocab;
  Precision precision;
  std::unique_ptr<PassesBase> passes;
};

Model::Model(const ModelConfig& config, Precision precision) {
  check(config);
  impl_ = std::make_unique<Impl>(config, precision);
}
Model::~Model() = default;

Precision Model::precision() const { return impl_->precision; }

StepResult Model::forward_backward(std::span<const float> params, const Batch& batch, double normaliser,
                                   std::span<float> grads) {
  CAPSTAN_ASSERT(grads.size() == impl_->size && normaliser > 0);
  return impl_->passes->step(params, batch, normaliser, grads.data());
}

StepResult Model::forward(std::span<const float> params, const Batch& batch) {
  return impl_->passes->step(params, batch, 1.0, nullptr);
}

void Model::forward_logits(std::span<const float> params, std::span<const std::int32_t> tokens,
                           std::span<float> logits) {
  CAPSTAN_ASSERT(logits.size() == tokens.size() * impl_->vocab);
  impl_->passes->logits(params, tokens, logits.data());
}

}  // namespace capstan::trainer

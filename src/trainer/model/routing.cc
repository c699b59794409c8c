// Scalar code: a token has few experts, so this is a small part of a step.
#include "trainer/model/routing.h"

#include <algorithm>
#include <cmath>

#include "trainer/model/gemm.h"

namespace capstan::trainer {

void Routing::route(const ModelConfig& config, const float* logits, int tokens) {
  const int experts = config.experts, chosen = config.experts_per_token;
  expert.resize(static_cast<std::size_t>(tokens) * chosen);
  share.resize(expert.size());
  probability.resize(static_cast<std::size_t>(tokens) * experts);
  load.assign(experts, 0);
  for (int t = 0; t < tokens; ++t) {
    const float* row = logits + static_cast<std::size_t>(t) * experts;
    float* p = probability.data() + static_cast<std::size_t>(t) * experts;
    std::int32_t* best = expert.data() + static_cast<std::size_t>(t) * chosen;
    for (int j = 0; j < chosen; ++j) {
      int top = -1;
      for (int e = 0; e < experts; ++e) {
        if ((top < 0 || row[e] > row[top]) && std::find(best, best + j, e) == best + j) top = e;
      }
      best[j] = top;
      ++load[top];
    }
    float all = 0.0f, few = 0.0f;
    for (int e = 0; e < experts; ++e) all += p[e] = std::exp(row[e] - row[best[0]]);
    float* w = share.data() + static_cast<std::size_t>(t) * chosen;
    for (int j = 0; j < chosen; ++j) few += w[j] = p[best[j]];
    for (int j = 0; j < chosen; ++j) w[j] /= few;
    for (int e = 0; e < experts; ++e) p[e] /= all;
  }
  place(config);
}

void Routing::place(const ModelConfig& config) {
  first_row.assign(config.experts + 1, 0);
  for (int e = 0; e < config.experts; ++e) {
    first_row[e + 1] = first_row[e] + round_rows(static_cast<int>(load[e]));
  }
  token.assign(rows(), -1);
  slot_share.assign(rows(), 0.0f);
  slot.resize(expert.size());
  std::vector<int> next(first_row.begin(), first_row.end() - 1);
  for (std::size_t i = 0; i < expert.size(); ++i) {
    const int row = next[expert[i]]++;
    slot[i] = row;
    token[row] = static_cast<std::int32_t>(i / config.experts_per_token);
    slot_share[row] = share[i];
  }
}

double Routing::balance_loss(int tokens) const {
  const std::size_t experts = load.size();
  double sum = 0.0;
  for (std::size_t e = 0; e < experts; ++e) {
    double mean = 0.0;
    for (int t = 0; t < tokens; ++t) mean += probability[t * experts + e];
    sum += static_cast<double>(load[e]) / static_cast<double>(expert.size()) * mean / tokens;
  }
  return sum * static_cast<double>(experts);
}

void Routing::backward(const ModelConfig& config, const float* dshare, int tokens, double aux_factor,
                       std::span<float> out) const {
  const int experts = config.experts, chosen = config.experts_per_token;
  std::vector<float> f(experts);
  for (int e = 0; e < experts; ++e) {
    f[e] = static_cast<float>(aux_factor * experts * static_cast<double>(load[e]) /
                              (static_cast<double>(expert.size()) * tokens));
  }
  for (int t = 0; t < tokens; ++t) {
    const std::size_t at = static_cast<std::size_t>(t) * experts, pick = static_cast<std::size_t>(t) * chosen;
    float mean = 0.0f, inner = 0.0f;
    for (int e = 0; e < experts; ++e) mean += f[e] * probability[at + e];
    for (int e = 0; e < experts; ++e) out[at + e] = probability[at + e] * (f[e] - mean);
    for (int j = 0; j < chosen; ++j) inner += share[pick + j] * dshare[slot[pick + j]];
    for (int j = 0; j < chosen; ++j)
      out[at + expert[pick + j]] += share[pick + j] * (dshare[slot[pick + j]] - inner);
  }
}

}  // namespace capstan::trainer

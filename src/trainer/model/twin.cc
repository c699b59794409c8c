// Every formula of gpt-oss once, in the order of the paper version: no blocks, no caches, no shared code.
#include "trainer/model/twin.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace capstan::trainer {
namespace {

using Vector = std::vector<double>;

struct Twin {
  const ModelConfig& c;
  std::span<const double> params;
  ParameterLayout layout{c};
  TwinResult result{};

  const double* tensor(const std::string& name) { return params.data() + layout.find(name).offset; }

  static Vector affine(const double* w, const double* b, int out, const Vector& x) {
    Vector y(out);
    for (int o = 0; o < out; ++o) {
      y[o] = b ? b[o] : 0.0;
      for (std::size_t i = 0; i < x.size(); ++i) y[o] += w[o * x.size() + i] * x[i];
    }
    return y;
  }

  Vector norm(const Vector& x, const double* weight) const {
    double squares = 0.0;
    for (double v : x) squares += v * v;
    Vector y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      y[i] = x[i] / std::sqrt(squares / static_cast<double>(x.size()) + c.rms_eps) * weight[i];
    }
    return y;
  }

  void rotate(double* head, int position) const {
    const int half = c.head_dim / 2;
    auto bound = [&](double beta) {
      return half * std::log(c.original_context / (2 * M_PI * beta)) / std::log(c.rope_theta);
    };
    double low = bound(c.beta_fast), high = bound(c.beta_slow);
    if (c.yarn_truncate) low = std::floor(low), high = std::ceil(high);
    for (int i = 0; i < half; ++i) {
      double frequency = std::pow(c.rope_theta, -2.0 * i / c.head_dim), concentration = 1.0;
      if (c.yarn_factor != 0.0) {
        const double ramp = std::min(1.0, std::max(0.0, (i - low) / (high - low)));
        frequency = frequency * (1 - ramp) + frequency / c.yarn_factor * ramp;
        concentration = 0.1 * std::log(c.yarn_factor) + 1.0;
      }
      const double cosine = concentration * std::cos(position * frequency);
      const double sine = concentration * std::sin(position * frequency);
      const double a = head[i], b = head[i + half];
      head[i] = a * cosine - b * sine;
      head[i + half] = b * cosine + a * sine;
    }
  }

  // Adds the attention of one document's rows.
  void attention(const std::string& name, bool sliding, std::span<Vector> x) {
    const int d = c.head_dim, n = static_cast<int>(x.size());
    std::vector<Vector> q, k, v;
    for (int t = 0; t < n; ++t) {
      const Vector h = norm(x[t], tensor(name + "input_layernorm.weight"));
      auto project = [&](const std::string& part, int heads) {
        return affine(tensor(name + "self_attn." + part + "_proj.weight"),
                      tensor(name + "self_attn." + part + "_proj.bias"), heads * d, h);
      };
      q.push_back(project("q", c.heads)), k.push_back(project("k", c.kv_heads)),
          v.push_back(project("v", c.kv_heads));
      for (int head = 0; head < c.heads; ++head) rotate(&q[t][head * d], t);
      for (int head = 0; head < c.kv_heads; ++head) rotate(&k[t][head * d], t);
    }
    for (int t = 0; t < n; ++t) {
      Vector mixed(c.heads * d, 0.0);
      for (int head = 0; head < c.heads; ++head) {
        const int kv = head / (c.heads / c.kv_heads);
        double denominator = std::exp(tensor(name + "self_attn.sinks")[head]);
        for (int j = sliding ? std::max(0, t - c.sliding_window + 1) : 0; j <= t; ++j) {
          double score = 0.0;
          for (int i = 0; i < d; ++i) score += q[t][head * d + i] * k[j][kv * d + i];
          const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
          denominator += weight;
          for (int i = 0; i < d; ++i) mixed[head * d + i] += weight * v[j][kv * d + i];
        }
        for (int i = 0; i < d; ++i) mixed[head * d + i] /= denominator;
      }
      const Vector out = affine(tensor(name + "self_attn.o_proj.weight"),
                                tensor(name + "self_attn.o_proj.bias"), c.hidden, mixed);
      for (int i = 0; i < c.hidden; ++i) x[t][i] += out[i];
    }
  }

  Vector expert(const std::string& name, int e, const Vector& h) {
    const int inner = c.intermediate;
    const Vector u =
        affine(tensor(name + "mlp.experts.gate_up_proj") + std::size_t(e) * 2 * inner * c.hidden,
               tensor(name + "mlp.experts.gate_up_proj_bias") + std::size_t(e) * 2 * inner, 2 * inner, h);
    Vector a(inner);
    for (int i = 0; i < inner; ++i) {
      result.gates_clamped += u[2 * i] > c.swiglu_limit;
      result.ups_clamped += std::abs(u[2 * i + 1]) > c.swiglu_limit;
      const double gate = std::min(u[2 * i], c.swiglu_limit);
      const double up = std::clamp(u[2 * i + 1], -c.swiglu_limit, c.swiglu_limit);
      a[i] = gate / (1.0 + std::exp(-1.702 * gate)) * (up + 1.0);
    }
    return affine(tensor(name + "mlp.experts.down_proj") + std::size_t(e) * c.hidden * inner,
                  tensor(name + "mlp.experts.down_proj_bias") + std::size_t(e) * c.hidden, c.hidden, a);
  }

  void experts(const std::string& name, int layer, std::vector<Vector>& x) {
    Vector mean(c.experts, 0.0), counts(c.experts, 0.0);
    for (Vector& row : x) {
      const Vector h = norm(row, tensor(name + "post_attention_layernorm.weight"));
      const Vector r =
          affine(tensor(name + "mlp.router.weight"), tensor(name + "mlp.router.bias"), c.experts, h);
      std::vector<int> order(c.experts);
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, std::greater{}, [&](int e) { return r[e]; });
      double all = 0.0, few = 0.0;
      for (double logit : r) all += std::exp(logit);
      for (int j = 0; j < c.experts_per_token; ++j) few += std::exp(r[order[j]]);
      for (int e = 0; e < c.experts; ++e) mean[e] += std::exp(r[e]) / all / static_cast<double>(x.size());
      if (c.experts_per_token < c.experts) {
        result.margin =
            std::min(result.margin, r[order[c.experts_per_token - 1]] - r[order[c.experts_per_token]]);
      }
      for (int j = 0; j < c.experts_per_token; ++j) {
        counts[order[j]] += 1.0;
        ++result.step.expert_load[layer * c.experts + order[j]];
        const Vector y = expert(name, order[j], h);
        for (int i = 0; i < c.hidden; ++i) row[i] += std::exp(r[order[j]]) / few * y[i];
      }
    }
    for (int e = 0; e < c.experts; ++e) {
      const double f = counts[e] / (static_cast<double>(x.size()) * c.experts_per_token);
      result.step.aux_loss += c.experts * f * mean[e] / c.layers;
    }
  }
};

}  // namespace

TwinResult twin_forward(const ModelConfig& config, std::span<const double> params, const Batch& batch,
                        double normaliser) {
  Twin twin{.c = config, .params = params};
  StepResult& step = twin.result.step;
  step.expert_load.assign(config.layers * config.experts, 0);
  std::vector<Vector> x;
  for (std::int32_t token : batch.tokens) {
    const double* row = twin.tensor("model.embed_tokens.weight") + std::size_t(token) * config.hidden;
    x.emplace_back(row, row + config.hidden);
  }
  for (int layer = 0; layer < config.layers; ++layer) {
    const std::string name = "model.layers." + std::to_string(layer) + ".";
    for (std::size_t d = 0; d < batch.document_starts.size(); ++d) {
      const std::size_t first = batch.document_starts[d];
      const std::size_t end = d + 1 < batch.document_starts.size() ? batch.document_starts[d + 1] : x.size();
      twin.attention(name, layer % 2 == 0, std::span(x).subspan(first, end - first));
    }
    twin.experts(name, layer, x);
  }
  for (std::size_t t = 0; t < x.size(); ++t) {
    const Vector logits = Twin::affine(twin.tensor("lm_head.weight"), nullptr, config.vocab,
                                       twin.norm(x[t], twin.tensor("model.norm.weight")));
    twin.result.logits.insert(twin.result.logits.end(), logits.begin(), logits.end());
    if (batch.targets.empty() || batch.targets[t] < 0) continue;
    double sum = 0.0;
    for (double logit : logits) sum += std::exp(logit);
    step.loss_sum += std::log(sum) - logits[batch.targets[t]];
    step.correct += std::ranges::max_element(logits) - logits.begin() == batch.targets[t];
    ++step.target_count;
  }
  twin.result.objective =
      step.loss_sum / normaliser + batch.aux_weight * config.aux_loss_coefficient * step.aux_loss;
  return twin.result;
}

}  // namespace capstan::trainer

// The order of the file is the order of a layer. Matrix products run over the flat batch at once; attention
// runs per sequence, kv head and block of queries; experts run over the tokens that chose them, all experts
// of a layer in one call so that threads are handed work twice a layer and not twice an expert. A token's
// sums have one order whatever is in the batch: experts are added by ascending index.
#include "engine/model/forward.h"

#include <algorithm>
#include <cmath>

#include "base/assert.h"
#include "engine/kernels/elementwise.h"

namespace capstan::engine {
namespace {

constexpr int kQueryTokensPerUnit = 16;
constexpr double kWorkPerRangeMin = 50e3;  // operations; below, a hand-off costs more than it saves
constexpr int kRangesPerThread = 16;  // more would only share more cache lines

template <class T>
void ensure(std::vector<T>& buffer, std::size_t size) {
  if (buffer.size() < size) buffer.resize(size);
}

MatmulTask linear_task(const Linear& linear, const float* x, int tokens, float* out) {
  return {.weight = linear.weight,
          .bias = linear.bias_data(),
          .x = x,
          .tokens = tokens,
          .x_stride = static_cast<std::size_t>(linear.weight.cols),
          .out = out,
          .out_stride = static_cast<std::size_t>(linear.weight.rows)};
}

PackedTask packed_task(const Linear& linear, const QuantizedRows& x, int tokens, float* out) {
  return {.weight = linear.packed,
          .bias = linear.bias_data(),
          .x = &x,
          .tokens = tokens,
          .out = out,
          .out_stride = static_cast<std::size_t>(linear.weight.rows)};
}

void embed(const WeightView& embedding, TokenId token, float* out) {
  for (int i = 0; i < embedding.cols; ++i) out[i] = weight_at(embedding, token, i);
}

}  // namespace

Forward::Forward(const ModelConfig& config, const Weights& weights, ThreadPool& pool)
    : config_(config),
      weights_(weights),
      pool_(pool),
      rope_(rope_frequencies(config.rope, config.head_dim)) {}

template <class Function>
void Forward::over_tokens(int count, double work_per_token, Function&& function) {
  const int most = std::min(count, kRangesPerThread * pool_.threads());
  const int ranges = std::clamp(static_cast<int>(count * work_per_token / kWorkPerRangeMin), 1, most);
  const int size = (count + ranges - 1) / ranges;
  pool_.parallel_for((count + size - 1) / size,
                     [&](int i) { function(i * size, std::min(count, (i + 1) * size)); });
}

void Forward::run(std::span<const Segment> segments, float* out) {
  prepare(segments);
  int wanted = 0;
  for (const Segment& segment : segments) wanted += segment.wanted;
  head_inputs_ = 0;
  for (int layer = 0; layer < config_.layers; ++layer) {
    const bool narrows = layer + 1 == config_.layers && wanted < tokens_;
    keys_values(layer, segments, !narrows);
    if (narrows) {
      if (wanted == 0) return;
      keep_wanted(segments);
      segments = kept_;
      project({{weights_.layers[layer].q, q_}});
    }
    attention(layer, segments);
    experts(layer);
  }
  if (wanted > 0) head(segments, out);
}

void Forward::prepare(std::span<const Segment> segments) {
  tokens_ = segments.back().first + static_cast<int>(segments.back().tokens.size());
  const std::size_t count = tokens_, assignments = count * config_.experts_per_token;
  const std::size_t hidden = config_.hidden, half = config_.head_dim / 2;
  ensure(x_, count * hidden);
  ensure(normed_, count * hidden);
  ensure(cosine_, count * half);
  ensure(sine_, count * half);
  ensure(q_, count * config_.q_dim());
  ensure(attended_, count * config_.q_dim());
  ensure(k_, count * config_.kv_dim());
  ensure(v_, count * config_.kv_dim());
  ensure(routes_, count * config_.experts);
  ensure(chosen_, assignments);
  ensure(chosen_weight_, assignments);
  ensure(expert_first_, config_.experts + 1);
  ensure(assignment_token_, assignments);
  ensure(assignment_slot_, assignments);
  if (!weights_.packed()) ensure(gathered_, assignments * hidden);
  ensure(assignment_row_, assignments);
  ensure(gate_up_, assignments * 2 * config_.intermediate);
  ensure(activated_, assignments * config_.intermediate);
  ensure(expert_out_, assignments * hidden);
  for (const Segment& segment : segments) {
    for (std::size_t i = 0; i < segment.tokens.size(); ++i) {
      const std::size_t t = segment.first + i;
      embed(weights_.embedding, segment.tokens[i], &x_[t * hidden]);
      const double position = segment.kv->length() + static_cast<double>(i);
      for (std::size_t j = 0; j < half; ++j) {
        const double angle = position * rope_.inverse[j];
        cosine_[t * half + j] = static_cast<float>(std::cos(angle) * rope_.concentration);
        sine_[t * half + j] = static_cast<float>(std::sin(angle) * rope_.concentration);
      }
    }
  }
}

// Of all tokens: the normed input, K and V, those into the caches; and the queries as they are projected.
void Forward::keys_values(int layer, std::span<const Segment> segments, bool with_queries) {
  const LayerWeights& w = weights_.layers[layer];
  normalize(w.input_norm);
  if (with_queries) {
    project({{w.q, q_}, {w.k, k_}, {w.v, v_}});
  } else {
    project({{w.k, k_}, {w.v, v_}});
  }
  rotate(k_, config_.kv_heads, 1.0f);
  for (const Segment& segment : segments) store_keys_values(layer, segment);
}

// From here on the batch is the tokens whose logits are wanted: their rows move to the front.
void Forward::keep_wanted(std::span<const Segment> segments) {
  const std::size_t hidden = config_.hidden, half = config_.head_dim / 2;
  kept_.clear();
  int kept = 0;
  for (const Segment& segment : segments) {
    if (segment.wanted == 0) continue;
    const int ahead = static_cast<int>(segment.tokens.size()) - segment.wanted;
    kept_.push_back({segment.tokens.last(segment.wanted), segment.kv, kept, segment.wanted, segment.screened, ahead});
    for (int t = segment.first + ahead; t < segment.first + ahead + segment.wanted; ++t, ++kept) {
      if (t == kept) continue;
      std::copy_n(&x_[t * hidden], hidden, &x_[kept * hidden]);
      std::copy_n(&normed_[t * hidden], hidden, &normed_[kept * hidden]);
      std::copy_n(&cosine_[t * half], half, &cosine_[kept * half]);
      std::copy_n(&sine_[t * half], half, &sine_[kept * half]);
    }
  }
  tokens_ = kept;
}

void Forward::normalize(const std::vector<float>& weight) {
  const std::size_t hidden = config_.hidden;
  over_tokens(tokens_, 2.0 * hidden, [&](int begin, int end) {
    for (std::size_t t = begin; t < static_cast<std::size_t>(end); ++t)
      rms_norm(&x_[t * hidden], weight.data(), config_.norm_epsilon, config_.hidden, &normed_[t * hidden]);
  });
}

// normed_ through each.
void Forward::project(std::initializer_list<Projection> projections) {
  if (weights_.packed()) {
    quantize(normed_.data(), tokens_, config_.hidden, quantized_);
    packed_tasks_.clear();
    for (const auto& [linear, out] : projections) packed_tasks_.push_back(packed_task(linear, quantized_, tokens_, out.data()));
    packed_matmul(packed_tasks_, pool_);
  } else {
    tasks_.clear();
    for (const auto& [linear, out] : projections) tasks_.push_back(linear_task(linear, normed_.data(), tokens_, out.data()));
    matmul(tasks_, pool_);
  }
}

void Forward::rotate(std::vector<float>& rows, int heads, float scale) {
  const std::size_t dim = config_.head_dim, half = dim / 2, width = heads * dim;
  over_tokens(tokens_, 4.0 * width, [&](int begin, int end) {
    for (std::size_t t = begin; t < static_cast<std::size_t>(end); ++t) {
      float* row = &rows[t * width];
      for (int h = 0; h < heads; ++h) rotate_halves(row + h * dim, &cosine_[t * half], &sine_[t * half], half);
      if (scale == 1.0f) continue;
      for (std::size_t i = 0; i < width; ++i) row[i] *= scale;
    }
  });
}

// q_, K and V are there; x_ gets the output added.
void Forward::attention(int layer, std::span<const Segment> segments) {
  const LayerWeights& w = weights_.layers[layer];
  rotate(q_, config_.heads, 1.0f / std::sqrt(static_cast<float>(config_.head_dim)));
  units_.clear();
  double work = 0;
  for (const Segment& segment : segments) {
    const int count = static_cast<int>(segment.tokens.size());
    const int visible = w.type == LayerType::kFullAttention
                            ? segment.kv->length() + segment.ahead + count
                            : std::min(config_.sliding_window, segment.kv->length() + segment.ahead + count);
    work += 2.0 * count * visible * config_.q_dim();
    for (int begin = 0; begin < count; begin += kQueryTokensPerUnit) {
      for (int h = 0; h < config_.kv_heads; ++h) {
        units_.push_back({&segment, h, begin, std::min(count, begin + kQueryTokensPerUnit)});
      }
    }
  }
  const int units = static_cast<int>(units_.size());
  over_tokens(units, work / units, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) attend(layer, units_[i]);
  });
  if (weights_.packed()) {
    quantize(attended_.data(), tokens_, config_.q_dim(), quantized_);
    PackedTask output = packed_task(w.o, quantized_, tokens_, x_.data());
    output.accumulate = true;
    packed_matmul(std::span(&output, 1), pool_);
  } else {
    MatmulTask output = linear_task(w.o, attended_.data(), tokens_, x_.data());
    output.accumulate = true;
    matmul(std::span(&output, 1), pool_);
  }
}

void Forward::store_keys_values(int layer, const Segment& segment) {
  const int dim = config_.head_dim;
  const auto store = [&]<class Element>(const Element* k, const Element* v, std::size_t i) {
    const int position = segment.kv->length() + static_cast<int>(i);
    const int slot = position % KvCache::kPageTokens;
    for (int h = 0; h < config_.kv_heads; ++h) {
      auto* keys = static_cast<Element*>(segment.kv->key_page(layer, position, h));
      auto* values = static_cast<Element*>(segment.kv->value_page(layer, position, h));
      for (int j = 0; j < dim; ++j) keys[j * KvCache::kPageTokens + slot] = k[h * dim + j];
      std::copy_n(v + h * dim, dim, values + slot * dim);
    }
  };
  for (std::size_t i = 0; i < segment.tokens.size(); ++i) {
    const std::size_t from = (segment.first + i) * config_.kv_dim();
    if (segment.kv->type() == KvType::kF32) {
      store(&k_[from], &v_[from], i);
      continue;
    }
    half_.resize(2 * static_cast<std::size_t>(config_.kv_dim()));
    to_half(&k_[from], config_.kv_dim(), half_.data());
    to_half(&v_[from], config_.kv_dim(), half_.data() + config_.kv_dim());
    store(half_.data(), half_.data() + config_.kv_dim(), i);
  }
}

void Forward::attend(int layer, const AttentionUnit& unit) {
  static thread_local std::vector<AttentionQuery> queries;
  static thread_local std::vector<float> accumulators;
  const LayerWeights& w = weights_.layers[layer];
  KvCache& kv = *unit.segment->kv;
  const int dim = config_.head_dim, group = config_.heads_per_kv();
  const int count = (unit.end - unit.begin) * group;
  queries.assign(count, {});
  ensure(accumulators, static_cast<std::size_t>(count) * dim);
  for (int i = 0; i < count; ++i) {
    const std::size_t token = unit.segment->first + unit.begin + i / group;
    const int head = unit.kv_head * group + i % group;
    queries[i].q = &q_[token * config_.q_dim() + head * dim];
    queries[i].accumulator = &accumulators[static_cast<std::size_t>(i) * dim];
    start_attention(queries[i], dim, w.sinks[head]);
  }
  const int start = kv.length() + unit.segment->ahead;
  const int first = start + unit.begin, last = start + unit.end - 1;
  const int window = w.type == LayerType::kSlidingAttention ? config_.sliding_window : last + 1;
  constexpr int kPage = KvCache::kPageTokens;
  for (int page = std::max(0, first - window + 1) / kPage; page <= last / kPage; ++page) {
    int begin = count, end = 0;
    for (int i = 0; i < count; ++i) {
      const int position = first + i / group;
      queries[i].begin = std::max(0, position - window + 1 - page * kPage);
      queries[i].end = std::min(kPage, position + 1 - page * kPage);
      if (queries[i].begin >= queries[i].end) continue;
      begin = std::min(begin, i);
      end = i + 1;
    }
    if (begin >= end) continue;
    const auto seeing = std::span(queries).subspan(begin, end - begin);
    const void* keys = kv.key_page(layer, page * kPage, unit.kv_head);
    const void* values = kv.value_page(layer, page * kPage, unit.kv_head);
    if (kv.type() == KvType::kF32) {
      attend_page(seeing, dim, static_cast<const float*>(keys), static_cast<const float*>(values));
    } else {
      attend_page(seeing, dim, static_cast<const Half*>(keys), static_cast<const Half*>(values));
    }
  }
  for (int i = 0; i < count; ++i) {
    const std::size_t token = unit.segment->first + unit.begin + i / group;
    const int head = unit.kv_head * group + i % group;
    finish_attention(queries[i], dim, &attended_[token * config_.q_dim() + head * dim]);
  }
}

// Fills chosen_, chosen_weight_ and the assignments grouped by expert (a counting sort; tokens stay in
// order).
void Forward::group_by_expert(int layer) {
  const LayerWeights& w = weights_.layers[layer];
  const int k = config_.experts_per_token;
  const MatmulTask router = linear_task(w.router, normed_.data(), tokens_, routes_.data());
  matmul(std::span(&router, 1), pool_);
  std::fill_n(expert_first_.begin(), config_.experts + 1, 0);
  for (int t = 0; t < tokens_; ++t) {
    route_top_k(&routes_[static_cast<std::size_t>(t) * config_.experts], config_.experts, k, &chosen_[t * k],
                &chosen_weight_[t * k]);
    for (int j = 0; j < k; ++j) ++expert_first_[chosen_[t * k + j] + 1];
  }
  for (int e = 0; e < config_.experts; ++e) expert_first_[e + 1] += expert_first_[e];
  static thread_local std::vector<int> next;
  next.assign(expert_first_.begin(), expert_first_.begin() + config_.experts);
  for (int t = 0; t < tokens_; ++t) {
    for (int j = 0; j < k; ++j) {
      const int assignment = next[chosen_[t * k + j]]++;
      assignment_token_[assignment] = t;
      assignment_slot_[t * k + j] = assignment;
    }
  }
}

void Forward::experts(int layer) {
  const std::size_t hidden = config_.hidden;
  const int k = config_.experts_per_token;
  normalize(weights_.layers[layer].post_norm);
  group_by_expert(layer);
  if (weights_.packed()) {
    packed_expert_products(layer);
  } else {
    expert_products(layer);
  }
  over_tokens(tokens_, 2.0 * k * hidden, [&](int begin, int end) {
    for (std::size_t i = static_cast<std::size_t>(begin) * k; i < static_cast<std::size_t>(end) * k; ++i) {
      add_scaled(&expert_out_[assignment_slot_[i] * hidden], chosen_weight_[i], config_.hidden,
                 &x_[i / k * hidden]);
    }
  });
}

// normed_ through the chosen experts, to expert_out_: one task per expert that somebody chose.
void Forward::expert_products(int layer) {
  const LayerWeights& w = weights_.layers[layer];
  const std::size_t hidden = config_.hidden, inner = config_.intermediate;
  const int assignments = tokens_ * config_.experts_per_token;
  for (int a = 0; a < assignments; ++a) {
    std::copy_n(&normed_[assignment_token_[a] * hidden], hidden, &gathered_[a * hidden]);
  }
  const auto run = [&](const std::vector<WeightView>& weights, const std::vector<float>& bias,
                       const std::vector<float>& from, std::vector<float>& to) {
    tasks_.clear();
    for (int e = 0; e < config_.experts; ++e) {
      const std::size_t first = expert_first_[e], rows = weights[e].rows, cols = weights[e].cols;
      const int count = expert_first_[e + 1] - expert_first_[e];
      if (count == 0) continue;
      tasks_.push_back({.weight = weights[e],
                        .bias = &bias[e * rows],
                        .x = &from[first * cols],
                        .tokens = count,
                        .x_stride = cols,
                        .out = &to[first * rows],
                        .out_stride = rows});
    }
    matmul(tasks_, pool_);
  };
  run(w.gate_up, w.gate_up_bias, gathered_, gate_up_);
  over_tokens(assignments, 16.0 * inner, [&](int begin, int end) {
    for (std::size_t a = begin; a < static_cast<std::size_t>(end); ++a) {
      clamped_swiglu(&gate_up_[a * 2 * inner], config_.swiglu_limit, config_.intermediate,
                     &activated_[a * inner]);
    }
  });
  run(w.down, w.down_bias, activated_, expert_out_);
}

// The same with integers. Each expert's rows begin at a whole tile, so that tiles hold rows of one expert.
void Forward::packed_expert_products(int layer) {
  const LayerWeights& w = weights_.layers[layer];
  const std::size_t inner = config_.intermediate;
  const int assignments = tokens_ * config_.experts_per_token;
  int rows = 0;
  needed_experts_.clear();
  for (int e = 0; e < config_.experts; ++e) {
    if (expert_first_[e] < expert_first_[e + 1]) needed_experts_.push_back(e);
    for (int a = expert_first_[e]; a < expert_first_[e + 1]; ++a)
      assignment_row_[a] = rows + a - expert_first_[e];
    const int count = expert_first_[e + 1] - expert_first_[e], tile = QuantizedRows::kTileRows;
    rows += (count + tile - 1) / tile * tile;
  }
  weights_.need_experts(layer, needed_experts_);
  quantize(normed_.data(), tokens_, config_.hidden, quantized_, weights_.gate_up_inputs);
  quantized_gathered_.reset(rows, config_.hidden, weights_.gate_up_inputs);
  over_tokens(assignments, config_.hidden, [&](int begin, int end) {
    for (int a = begin; a < end; ++a)
      quantized_gathered_.copy_row(assignment_row_[a], quantized_, assignment_token_[a]);
  });
  const auto run = [&](const std::vector<PackedMatrix>& weights, const std::vector<float>& bias,
                       std::vector<float>& to) {
    packed_tasks_.clear();
    for (int e = 0; e < config_.experts; ++e) {
      const std::size_t first = expert_first_[e], outputs = weights[e].rows;
      const int count = expert_first_[e + 1] - expert_first_[e];
      if (count == 0) continue;
      packed_tasks_.push_back({.weight = weights[e],
                               .bias = &bias[e * outputs],
                               .x = &quantized_gathered_,
                               .first = assignment_row_[first],
                               .tokens = count,
                               .out = &to[first * outputs],
                               .out_stride = outputs});
    }
    packed_matmul(packed_tasks_, pool_);
  };
  run(w.packed_gate_up, w.gate_up_bias, gate_up_);
  quantized_gathered_.reset(rows, config_.intermediate);
  over_tokens(assignments, 20.0 * inner, [&](int begin, int end) {
    for (std::size_t a = begin; a < static_cast<std::size_t>(end); ++a) {
      clamped_swiglu(&gate_up_[a * 2 * inner], config_.swiglu_limit, config_.intermediate,
                     &activated_[a * inner]);
      quantized_gathered_.set_row(assignment_row_[a], &activated_[a * inner]);
    }
  });
  run(w.packed_down, w.down_bias, expert_out_);
}

void Forward::quantize(const float* x, int rows, int cols, QuantizedRows& out, ActivationBits bits) {
  out.reset(rows, cols, bits);
  over_tokens(rows, 4.0 * cols, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) out.set_row(i, x + static_cast<std::size_t>(i) * cols);
  });
}

// By now the batch is the tokens whose logits are wanted.
void Forward::head(std::span<const Segment> segments, float* out) {
  normalize(weights_.final_norm);
  head_inputs_ = static_cast<std::size_t>(tokens_) * config_.hidden;
  if (weights_.packed()) {
    const bool has_screen = weights_.head_screen.data != nullptr;
    for (const bool screened : {false, true}) {
      head_rows_.clear();
      int row = 0;
      for (const Segment& segment : segments) {
        for (int i = 0; i < segment.wanted; ++i, ++row) {
          if ((segment.screened && has_screen) == screened) head_rows_.push_back(row);
        }
      }
      if (head_rows_.empty()) continue;
      if (screened) {
        packed_head(weights_.head_screen, ActivationBits::k8, out);
      } else {
        weights_.need_head({});
        packed_head(weights_.packed_head, ActivationBits::k15, out);
      }
    }
    return;
  }
  const MatmulTask task{.weight = weights_.head,
                        .x = normed_.data(),
                        .tokens = tokens_,
                        .x_stride = static_cast<std::size_t>(config_.hidden),
                        .out = out,
                        .out_stride = static_cast<std::size_t>(config_.vocab)};
  matmul(std::span(&task, 1), pool_);
}

// Logits of head_rows_.
void Forward::packed_head(const PackedMatrix& matrix, ActivationBits bits, float* out) {
  const auto hidden = static_cast<std::size_t>(config_.hidden), vocab = static_cast<std::size_t>(config_.vocab);
  const int count = static_cast<int>(head_rows_.size());
  quantized_.reset(count, config_.hidden, bits);
  for (int i = 0; i < count; ++i) quantized_.set_row(i, &normed_[static_cast<std::size_t>(head_rows_[i]) * hidden]);
  const bool together = count == tokens_;
  if (!together) ensure(head_out_, static_cast<std::size_t>(count) * vocab);
  const PackedTask task{
      .weight = matrix, .x = &quantized_, .tokens = count, .out = together ? out : head_out_.data(), .out_stride = vocab};
  packed_matmul(std::span(&task, 1), pool_);
  for (int i = 0; !together && i < count; ++i)
    std::copy_n(&head_out_[static_cast<std::size_t>(i) * vocab], vocab, out + static_cast<std::size_t>(head_rows_[i]) * vocab);
}

void Forward::head_panels(const float* input, std::span<const int> panels, float* out) {
  weights_.need_head(panels);
  quantized_.reset(1, config_.hidden);
  quantized_.set_row(0, input);
  const PackedMatrix& head = weights_.packed_head;
  const std::size_t bytes = panel_bytes(head.type, head.cols);
  packed_tasks_.clear();
  for (const int panel : panels) {
    packed_tasks_.push_back({.weight = {head.type, kPanelRows, head.cols, head.data + static_cast<std::size_t>(panel) * bytes},
                             .x = &quantized_,
                             .tokens = 1,
                             .out = out,
                             .out_stride = kPanelRows});
    out += kPanelRows;
  }
  packed_matmul(packed_tasks_, pool_);
}

}  // namespace capstan::engine

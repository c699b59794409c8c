// How it works. Up to four queries share each load of K and V. Scores run over keys in SIMD lanes (K lies
// transposed in a page), so they need no sums across lanes; invisible keys get -infinity. Then the running
// maximum, sum and accumulator are rescaled once a page, and V is added key by key.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/attention.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include "engine/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace capstan::engine {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using Vector = hn::Vec<Tag>;

template <int kQueries>
HWY_INLINE void page_scores(const AttentionQuery* queries, int head_dim, const float* HWY_RESTRICT keys,
                            float (*scores)[kAttentionPage]) {
  constexpr int kVectors = kQueries <= 2 ? 4 : 2;  // few queries need more sums under way to hide latency
  const Tag d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int key = 0; key < kAttentionPage; key += kVectors * lanes) {
    Vector sums[kQueries][kVectors];
    for (int q = 0; q < kQueries; ++q) {
      for (int v = 0; v < kVectors; ++v) sums[q][v] = hn::Zero(d);
    }
    for (int i = 0; i < head_dim; ++i) {
      Vector k[kVectors];
      for (int v = 0; v < kVectors; ++v) k[v] = hn::LoadU(d, keys + i * kAttentionPage + key + v * lanes);
      for (int q = 0; q < kQueries; ++q) {
        const Vector component = hn::Set(d, queries[q].q[i]);
        for (int v = 0; v < kVectors; ++v) sums[q][v] = hn::MulAdd(k[v], component, sums[q][v]);
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int v = 0; v < kVectors; ++v) hn::Store(sums[q][v], d, scores[q] + key + v * lanes);
    }
  }
}

// Turns scores into weights and rescales what was gathered before.
HWY_INLINE void running_softmax(AttentionQuery& query, int head_dim, float* HWY_RESTRICT scores) {
  const Tag d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  std::fill(scores, scores + query.begin, -std::numeric_limits<float>::infinity());
  std::fill(scores + query.end, scores + kAttentionPage, -std::numeric_limits<float>::infinity());
  Vector largest = hn::Set(d, query.max);
  for (int i = 0; i < kAttentionPage; i += lanes) largest = hn::Max(largest, hn::Load(d, scores + i));
  const float max = hn::GetLane(hn::MaxOfLanes(d, largest));
  Vector total = hn::Zero(d);
  for (int i = 0; i < kAttentionPage; i += lanes) {
    const Vector weight = hn::Exp(d, hn::Sub(hn::Load(d, scores + i), hn::Set(d, max)));
    hn::Store(weight, d, scores + i);
    total = hn::Add(total, weight);
  }
  const float rescale = std::exp(query.max - max);
  query.sum = query.sum * rescale + hn::GetLane(hn::SumOfLanes(d, total));
  query.max = max;
  if (rescale != 1.0f) {
    for (int i = 0; i < head_dim; i += lanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, query.accumulator + i), hn::Set(d, rescale)), d, query.accumulator + i);
    }
  }
}

template <int kQueries>
HWY_INLINE void add_values(const AttentionQuery* queries, int head_dim, const float* HWY_RESTRICT values,
                           const float (*weights)[kAttentionPage]) {
  const Tag d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int begin = kAttentionPage, end = 0;
  for (int q = 0; q < kQueries; ++q) {
    if (queries[q].begin >= queries[q].end) continue;
    begin = std::min(begin, queries[q].begin);
    end = std::max(end, queries[q].end);
  }
  for (int i = 0; i < head_dim; i += 2 * lanes) {
    Vector a[kQueries], b[kQueries];
    for (int q = 0; q < kQueries; ++q) {
      a[q] = hn::LoadU(d, queries[q].accumulator + i);
      b[q] = hn::LoadU(d, queries[q].accumulator + i + lanes);
    }
    for (int key = begin; key < end; ++key) {
      const Vector v0 = hn::LoadU(d, values + key * head_dim + i);
      const Vector v1 = hn::LoadU(d, values + key * head_dim + i + lanes);
      for (int q = 0; q < kQueries; ++q) {
        const Vector weight = hn::Set(d, weights[q][key]);
        a[q] = hn::MulAdd(v0, weight, a[q]);
        b[q] = hn::MulAdd(v1, weight, b[q]);
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      hn::StoreU(a[q], d, queries[q].accumulator + i);
      hn::StoreU(b[q], d, queries[q].accumulator + i + lanes);
    }
  }
}

template <int kQueries>
HWY_NOINLINE void attend(AttentionQuery* queries, int head_dim, const float* keys, const float* values) {
  HWY_ALIGN float scores[kQueries][kAttentionPage];
  page_scores<kQueries>(queries, head_dim, keys, scores);
  for (int q = 0; q < kQueries; ++q) {
    if (queries[q].begin < queries[q].end) {
      running_softmax(queries[q], head_dim, scores[q]);
    } else {
      std::fill(scores[q], scores[q] + kAttentionPage, 0.0f);
    }
  }
  add_values<kQueries>(queries, head_dim, values, scores);
}

void AttendPage(std::span<AttentionQuery> queries, int head_dim, const float* keys, const float* values) {
  std::size_t q = 0;
  for (; q + 4 <= queries.size(); q += 4) attend<4>(&queries[q], head_dim, keys, values);
  switch (queries.size() - q) {
    case 3:
      return attend<3>(&queries[q], head_dim, keys, values);
    case 2:
      return attend<2>(&queries[q], head_dim, keys, values);
    case 1:
      return attend<1>(&queries[q], head_dim, keys, values);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace capstan::engine
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace capstan::engine {

HWY_EXPORT(AttendPage);

void attend_page(std::span<AttentionQuery> queries, int head_dim, const float* keys, const float* values) {
  HWY_DYNAMIC_DISPATCH(AttendPage)(queries, head_dim, keys, values);
}

void start_attention(AttentionQuery& query, int head_dim, float sink) {
  query.max = sink;
  query.sum = 1;
  std::fill(query.accumulator, query.accumulator + head_dim, 0.0f);
}

void finish_attention(const AttentionQuery& query, int head_dim, float* out) {
  for (int i = 0; i < head_dim; ++i) out[i] = query.accumulator[i] / query.sum;
}

void attention_scalar(const float* q, const float* keys, const float* values, int count, int head_dim,
                      float sink, float* out) {
  std::vector<double> scores(count, 0);
  double max = sink;
  for (int j = 0; j < count; ++j) {
    for (int i = 0; i < head_dim; ++i) scores[j] += static_cast<double>(q[i]) * keys[j * head_dim + i];
    max = std::max(max, scores[j]);
  }
  double sum = std::exp(sink - max);
  std::vector<double> result(head_dim, 0);
  for (int j = 0; j < count; ++j) {
    const double weight = std::exp(scores[j] - max);
    sum += weight;
    for (int i = 0; i < head_dim; ++i) result[i] += weight * values[j * head_dim + i];
  }
  for (int i = 0; i < head_dim; ++i) out[i] = static_cast<float>(result[i] / sum);
}

}  // namespace capstan::engine
#endif  // HWY_ONCE

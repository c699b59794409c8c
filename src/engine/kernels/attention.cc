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

HWY_INLINE Vector load(Tag d, const float* HWY_RESTRICT from) { return hn::LoadU(d, from); }
HWY_INLINE Vector load(Tag d, const Half* HWY_RESTRICT from) {
  const hn::Rebind<hwy::float16_t, Tag> half;
  return hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(from)));
}

template <int kQueries, class Element>
HWY_INLINE void page_scores(const AttentionQuery* queries, int head_dim, const Element* HWY_RESTRICT keys,
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
      for (int v = 0; v < kVectors; ++v) k[v] = load(d, keys + i * kAttentionPage + key + v * lanes);
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

template <int kQueries, class Element>
HWY_INLINE void add_values(const AttentionQuery* queries, int head_dim, const Element* HWY_RESTRICT values,
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
      const Vector v0 = load(d, values + key * head_dim + i);
      const Vector v1 = load(d, values + key * head_dim + i + lanes);
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

template <int kQueries, class Element>
HWY_NOINLINE void attend(AttentionQuery* queries, int head_dim, const Element* keys, const Element* values) {
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

template <class Element>
HWY_INLINE void attend_all(std::span<AttentionQuery> queries, int head_dim, const Element* keys, const Element* values) {
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

void AttendPage(std::span<AttentionQuery> queries, int head_dim, const float* keys, const float* values) {
  attend_all(queries, head_dim, keys, values);
}
void AttendHalfPage(std::span<AttentionQuery> queries, int head_dim, const Half* keys, const Half* values) {
  attend_all(queries, head_dim, keys, values);
}

// By hand, because not every target's own conversion rounds. Normal numbers: half a unit, less one if the last bit is even, is
// added to the bits that are cut off. Below 2^-14, adding 0.5 makes the adder round to multiples of 2^-24.
void ToHalf(const float* HWY_RESTRICT from, int count, Half* HWY_RESTRICT to) {
  const Tag d;
  const hn::RebindToUnsigned<Tag> bits;
  const hn::RebindToSigned<Tag> signed_bits;
  const hn::Rebind<std::uint16_t, Tag> half;
  for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(d))) {
    const Vector value = hn::LoadU(d, from + i);
    const Vector size = hn::Min(hn::Abs(value), hn::Set(d, 65504.0f));
    const auto odd = hn::And(hn::ShiftRight<13>(hn::BitCast(bits, size)), hn::Set(bits, 1));
    const auto rounded = hn::Add(hn::Add(hn::BitCast(bits, size), hn::Set(bits, 0xFFF)), odd);
    const auto normal = hn::Sub(hn::ShiftRight<13>(rounded), hn::Set(bits, 112u << 10));
    const Vector shifted = hn::Add(size, hn::Set(d, 0.5f));
    const auto tiny = hn::Sub(hn::BitCast(bits, shifted), hn::BitCast(bits, hn::Set(d, 0.5f)));
    const auto is_tiny = hn::RebindMask(bits, hn::Lt(size, hn::Set(d, 0x1p-14f)));
    const auto sign = hn::And(hn::ShiftRight<16>(hn::BitCast(bits, value)), hn::Set(bits, 0x8000));
    const auto result = hn::Or(hn::IfThenElse(is_tiny, tiny, normal), sign);
    hn::StoreU(hn::DemoteTo(half, hn::BitCast(signed_bits, result)), half, to + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace capstan::engine
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace capstan::engine {

HWY_EXPORT(AttendPage);
HWY_EXPORT(AttendHalfPage);
HWY_EXPORT(ToHalf);

void attend_page(std::span<AttentionQuery> queries, int head_dim, const float* keys, const float* values) {
  HWY_DYNAMIC_DISPATCH(AttendPage)(queries, head_dim, keys, values);
}

void attend_page(std::span<AttentionQuery> queries, int head_dim, const Half* keys, const Half* values) {
  HWY_DYNAMIC_DISPATCH(AttendHalfPage)(queries, head_dim, keys, values);
}

void to_half(const float* from, int count, Half* to) { HWY_DYNAMIC_DISPATCH(ToHalf)(from, count, to); }

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

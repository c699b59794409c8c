// Attention of queries over one page of keys and values, with a running softmax and gpt-oss's sink.
//
//   AttentionQuery q{...};  start_attention(q, head_dim, sink);
//   for each page: q.begin/end = visible keys;  attend_page({&q, 1}, head_dim, keys, values);
//   finish_attention(q, head_dim, out);      // out = sum_j p_j v_j,  p = softmax over the keys and the sink
//
// Running softmax (Milakov & Gimelshein 2018): `max` starts at the sink and `sum` at 1, for the sink itself,
// which has no value vector. Pages are visited in the order of positions, so a query's bits do not depend on
// its batch. Shapes: q and accumulator (head_dim), keys (head_dim, kAttentionPage), values (kAttentionPage,
// head_dim), f32 or f16; sums are f32. head_dim is a multiple of 32. The query is already scaled by 1/sqrt(head_dim).
#pragma once

#include <cstdint>
#include <span>

namespace capstan::engine {

inline constexpr int kAttentionPage = 64;

using Half = std::uint16_t;  // the bits of an IEEE binary16

// Rounds to nearest, ties to even; what is larger than 65504 becomes 65504. `count` is a multiple of 32.
void to_half(const float* from, int count, Half* to);

struct AttentionQuery {
  const float* q = nullptr;
  float* accumulator = nullptr;
  float max = 0;
  float sum = 0;
  int begin = 0;  // keys [begin, end) of the page are visible; an empty range changes nothing
  int end = 0;
};

void start_attention(AttentionQuery& query, int head_dim, float sink);
void attend_page(std::span<AttentionQuery> queries, int head_dim, const float* keys, const float* values);
void attend_page(std::span<AttentionQuery> queries, int head_dim, const Half* keys, const Half* values);
void finish_attention(const AttentionQuery& query, int head_dim, float* out);

// The twin over a whole sequence: keys and values (count, head_dim), two passes, in double.
void attention_scalar(const float* q, const float* keys, const float* values, int count, int head_dim,
                      float sink, float* out);

}  // namespace capstan::engine

// Forward: the transformer over one flat batch of tokens from several sequences, and its working memory.
//
// The caller (Model) has checked tokens and positions, cut the work to kChunkTokensMax tokens, and reserved
// the caches. Shapes are noted at the members: T tokens in the batch, A = T * experts_per_token assignments.
// Threads: one caller; the pool inside.  Memory: grows to the largest batch seen and stays.
#pragma once

#include <span>
#include <vector>

#include "engine/kernels/attention.h"
#include "engine/kernels/matmul.h"
#include "engine/kernels/packed.h"
#include "engine/kernels/thread_pool.h"
#include "engine/model/kv_cache.h"
#include "engine/model/weights.h"

namespace capstan::engine {

// Consecutive tokens of one sequence; token i stands at position kv->length() + ahead + i.
struct Segment {
  std::span<const TokenId> tokens;
  KvCache* kv = nullptr;
  int first = 0;   // index of its first token in the flat batch
  int wanted = 0;  // of how many of its last tokens the logits are wanted
  bool screened = false;  // near logits are enough, if the head has a screen
  int ahead = 0;   // tokens of the same batch that come before these
};

class Forward {
 public:
  Forward(const ModelConfig& config, const Weights& weights, ThreadPool& pool);

  // Runs all layers over the segments and writes K and V into their caches (without advancing them).
  // The wanted logits go to out (sum of Segment::wanted, vocab), in the batch's order.
  // Cost: of tokens whose logits nobody wants the last layer computes K and V alone.
  void run(std::span<const Segment> segments, float* out);
  // What the last run's logits were made of: (sum of Segment::wanted, hidden).
  std::span<const float> head_inputs() const { return std::span(normed_).first(head_inputs_); }
  // True logits of panels, kPanelRows each, from one row of head_inputs().
  void head_panels(const float* input, std::span<const int> panels, float* out);

 private:
  struct AttentionUnit {
    const Segment* segment;
    int kv_head;
    int begin;  // tokens of the segment
    int end;
  };

  struct Projection {
    const Linear& linear;
    std::vector<float>& out;
  };

  void prepare(std::span<const Segment> segments);
  void keys_values(int layer, std::span<const Segment> segments, bool with_queries);
  void keep_wanted(std::span<const Segment> segments);
  void attention(int layer, std::span<const Segment> segments);
  void normalize(const std::vector<float>& weight);
  void project(std::initializer_list<Projection> projections);
  void rotate(std::vector<float>& rows, int heads, float scale);
  void store_keys_values(int layer, const Segment& segment);
  void attend(int layer, const AttentionUnit& unit);
  void experts(int layer);
  void group_by_expert(int layer);
  void head(std::span<const Segment> segments, float* out);
  void packed_head(const PackedMatrix& matrix, ActivationBits bits, float* out);
  void expert_products(int layer);
  void packed_expert_products(int layer);
  void quantize(const float* x, int rows, int cols, QuantizedRows& out, ActivationBits bits = ActivationBits::k15);
  // function(begin, end) over ranges of [0, count), on several threads if the work is worth it.
  template <class Function>
  void over_tokens(int count, double work_per_token, Function&& function);

  const ModelConfig& config_;
  const Weights& weights_;
  ThreadPool& pool_;
  RopeFrequencies rope_;

  int tokens_ = 0;                     // T; in the last layer, those whose logits are wanted
  std::vector<float> x_;               // (T, hidden), the residual stream
  std::vector<float> normed_;          // (T, hidden)
  std::vector<float> cosine_, sine_;   // (T, head_dim / 2)
  std::vector<float> q_, attended_;    // (T, q_dim)
  std::vector<float> k_, v_;           // (T, kv_dim)
  std::vector<Half> half_;             // (2, kv_dim): K and V of a token on their way to the cache
  std::vector<float> routes_;          // (T, experts)
  std::vector<int> chosen_;            // (T, experts_per_token)
  std::vector<float> chosen_weight_;   // (T, experts_per_token)
  std::vector<int> expert_first_;      // (experts + 1): where each expert's assignments start
  std::vector<int> assignment_token_;  // (A), grouped by expert
  std::vector<int> needed_experts_;    // those that somebody chose
  std::vector<int> assignment_slot_;   // (T, experts_per_token): the assignment of a token's choice
  std::vector<float> gathered_;        // (A, hidden)
  std::vector<float> gate_up_;         // (A, 2 intermediate)
  std::vector<float> activated_;       // (A, intermediate)
  std::vector<float> expert_out_;      // (A, hidden)
  std::vector<int> assignment_row_;    // (A): its row in quantized_gathered_; experts begin at whole tiles
  QuantizedRows quantized_;            // (T, …): the input of the products under way
  QuantizedRows quantized_gathered_;   // (A and gaps, …): the same by assignment
  std::vector<MatmulTask> tasks_;
  std::vector<PackedTask> packed_tasks_;
  std::vector<AttentionUnit> units_;
  std::vector<Segment> kept_;          // the segments' wanted tokens, close together
  std::size_t head_inputs_ = 0;
  std::vector<int> head_rows_;         // that one of the two heads is for
  std::vector<float> head_out_;        // their logits, where they do not lie together
};

}  // namespace capstan::engine

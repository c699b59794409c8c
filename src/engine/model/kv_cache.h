// KvCache: the keys and values of one sequence, for every layer: tables of blocks in a KvPool.
//
//   KvCache kv(model.config(), model.kv_type());   // with a pool of its own; or KvCache kv(pool), to share
//   model.forward(tokens, kv);     // appends tokens.size() positions
//   kv.reset();                    // the next sequence
//
// Full layers keep every block; sliding layers those that positions from length() on can see. A block that others refer to as
// well (a prefix cache, another sequence) is copied before the sequence writes into it, so sharing is never visible.
// Threads: one owner; during Model::step the model's threads read and write disjoint parts of it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/model/kv_pool.h"
#include "engine/tensor/model_config.h"

namespace capstan::engine {

class KvCache {
 public:
  static constexpr int kPageTokens = KvPool::kBlockTokens;
  // The most positions that one step appends to one sequence (Model::step cuts longer inputs).
  static constexpr int kChunkTokensMax = 512;

  explicit KvCache(const ModelConfig& config, KvType type = KvType::kF32);
  explicit KvCache(KvPool& pool);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // Positions held so far: the position of the next token.
  int length() const { return length_; }
  KvType type() const { return pool_.type(); }
  void reset();
  // Forgets the positions from `length` on. Only back to where the last reserve() was: earlier windows are gone.
  void truncate(int length);
  // Memory that the sequence refers to, shared or not.
  std::uint64_t bytes() const;

  // Makes the blocks of positions [length, length + count) exist and be the sequence's own; lets go of sliding blocks that
  // nobody will see again. False, and the blocks got so far are kept, if the pool is full.
  bool reserve(int count);
  // Blocks that reserve(count) would take from the pool.
  struct Need {
    int full = 0;
    int sliding = 0;
  };
  Need need(int count) const;

  // Block `index` holds positions [64 index, 64 index + 64); null if it is not there.
  KvBlockRef block(KvKind kind, int index) const;
  // Takes a block that holds the sequence's positions; the next free position is set by resume().
  void attach(KvKind kind, int index, KvBlockRef block);
  // The first `length` positions are held by attached blocks.
  void resume(int length) { length_ = length; }
  // The first sliding block that a token at `position` sees.
  int window_begin_block(int position) const;

  // For Model.
  void advance(int count) { length_ += count; }
  // Of the page that holds `position` in `layer`, for one kv head; elements of type().
  void* key_page(int layer, int position, int kv_head) const {
    const auto& table = tables_[static_cast<int>(pool_.kind_of(layer))];
    return table[position / kPageTokens].data() + pool_.offset_of(layer) + kv_head * head_bytes_;
  }
  void* value_page(int layer, int position, int kv_head) const {
    return key_page(layer, position, kv_heads_ + kv_head);
  }

 private:
  using Table = std::vector<KvBlockRef>;  // by index; sliding ones before the window are null
  bool own(KvKind kind, int index);
  Table& table(KvKind kind) { return tables_[static_cast<int>(kind)]; }
  const Table& table(KvKind kind) const { return tables_[static_cast<int>(kind)]; }

  std::unique_ptr<KvPool> own_pool_;
  KvPool& pool_;
  int kv_heads_;
  std::size_t head_bytes_;  // of K, or V, of one head in a block
  int length_ = 0;
  Table tables_[2];
  int sliding_begin_ = 0;  // blocks before it are let go
};

}  // namespace capstan::engine

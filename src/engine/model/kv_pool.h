// KvPool: the memory of keys and values, in blocks of 64 positions that sequences share.
//
//   KvPool pool(model.config(), model.kv_type(), {.bytes_max = 4ull << 30});
//   KvBlockRef block = pool.allocate(KvKind::kFull);   // null if bytes_max is reached
//
// A block holds K and V of 64 consecutive positions for all layers of one kind: full layers need the blocks of the whole
// sequence, sliding ones those of the window. A block lives as long as somebody refers to it; one with several referrers is
// never written to (KvCache copies it first).
//   In a block: [layer of the kind][K: kv_head, head_dim, 64 | V: kv_head, 64, head_dim]. K lies transposed, so that scores run
//   over keys in SIMD lanes.
// Cost: a block of gpt-oss-20b takes 1.5 MiB in f16. Memory of freed blocks is kept for the next ones.
// Threads: one owner of the pool and all its references; blocks' contents are written and read by the model's threads in a step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "engine/tensor/model_config.h"

namespace capstan::engine {

enum class KvType { kF32, kF16 };
enum class KvKind { kFull, kSliding };

class KvPool;

struct KvBlock {
  std::unique_ptr<std::byte[]> data;
  KvPool* pool = nullptr;
  KvKind kind = KvKind::kFull;
  int references = 0;
};

// Counts as one reference to its block, or is null.
class KvBlockRef {
 public:
  KvBlockRef() = default;
  explicit KvBlockRef(KvBlock* block) : block_(block) {
    if (block_ != nullptr) ++block_->references;
  }
  KvBlockRef(const KvBlockRef& other) : KvBlockRef(other.block_) {}
  KvBlockRef(KvBlockRef&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  KvBlockRef& operator=(KvBlockRef other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~KvBlockRef();

  explicit operator bool() const { return block_ != nullptr; }
  bool operator==(const KvBlockRef& other) const = default;  // the same block
  std::byte* data() const { return block_->data.get(); }
  int references() const { return block_->references; }

 private:
  KvBlock* block_ = nullptr;
};

struct KvPoolOptions {
  std::uint64_t bytes_max = std::numeric_limits<std::uint64_t>::max();
};

class KvPool {
 public:
  static constexpr int kBlockTokens = 64;

  KvPool(const ModelConfig& config, KvType type, KvPoolOptions options = {});
  ~KvPool();  // every reference must be gone
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  KvBlockRef allocate(KvKind kind);
  // Could allocate() give so many blocks?
  bool has_room(int full, int sliding) const;

  std::uint64_t block_bytes(KvKind kind) const { return block_bytes_[static_cast<int>(kind)]; }
  std::uint64_t bytes_max() const { return bytes_max_; }
  std::uint64_t bytes() const;  // of live blocks
  int live(KvKind kind) const { return live_[static_cast<int>(kind)]; }
  KvType type() const { return type_; }
  int element_bytes() const { return type_ == KvType::kF32 ? 4 : 2; }
  int layers() const { return static_cast<int>(places_.size()); }
  int head_dim() const { return head_dim_; }
  int kv_heads() const { return kv_heads_; }
  // Of sliding layers: how many positions a query sees, itself included.
  int window() const { return window_; }
  // Where a layer's K begins in a block of its kind.
  KvKind kind_of(int layer) const { return places_[layer].kind; }
  std::size_t offset_of(int layer) const { return places_[layer].offset; }

 private:
  friend class KvBlockRef;
  struct Place {
    KvKind kind;
    std::size_t offset;
  };
  void give_back(KvBlock* block);

  KvType type_;
  int head_dim_, kv_heads_, window_;
  std::uint64_t bytes_max_;
  std::vector<Place> places_;  // by layer
  std::uint64_t block_bytes_[2] = {0, 0};
  int live_[2] = {0, 0};
  std::vector<std::unique_ptr<KvBlock>> free_[2];
};

}  // namespace capstan::engine

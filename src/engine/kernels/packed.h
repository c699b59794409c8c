// Packed weights: matrices rearranged once for integer dot products, and their products with activations of 15 or 8
// bits.
//
//   std::vector<std::uint8_t> bytes(packed_bytes(PackedType::kMxfp4, rows, cols));
//   pack_panels(weight, type, 0, panels(rows), bytes.data());
//   PackedMatrix w{type, rows, cols, bytes.data()};
//   q.reset(tokens, cols);  q.set_row(i, x + i * cols);      // once for all matrices that take this input
//   PackedTask task{.weight = w, .bias = b, .x = &q, .tokens = t, .out = y, .out_stride = rows};
//   packed_matmul(std::span(&task, 1), pool);
//
// Layout. A panel is 16 rows (the last one padded with zeros). Inputs go in blocks of 32. A panel holds first
// the scales of all its blocks, 16 a block (kMxfp4: the e8m0 byte; else an f16), padded to 64 bytes, then the
// numbers of all blocks: for each group of four inputs and each row four numbers, so that one 64-byte line
// meets four inputs with sixteen rows. Numbers are stored unsigned: kMxfp4 as the nibble of the format, kInt4
// as value + 8, kInt8 as value + 128. A line of 4-bit numbers holds groups g and g + 4. Wider ones are
// value = (high - 128) x 2^low_bits + low: the high bytes as of kInt8, then the low bits, of which a line
// holds 8 / low_bits groups.
//
// Activations have one scale a token and block of 32, and 15 bits or, for kMxfp4 only, 8. Sums within a block are exact
// integers, of 31 bits at most; each is rounded once to f32, and blocks are added in f32 in order. So an output's bits
// depend on its row and its token alone: not on the batch, the threads or the instruction set.
// Cost: each weight is read once a call for up to 16 tokens. Source of the doubling trick: fp4 x 2 is an
// integer. Threads: as ThreadPool.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/kernels/thread_pool.h"
#include "engine/kernels/weight.h"

namespace capstan::engine {

inline constexpr int kPanelRows = 16;
inline constexpr int kPackedBlock = 32;

enum class PackedType : std::uint8_t { kMxfp4, kInt4, kInt8, kInt10, kInt12 };
std::string_view packed_type_name(PackedType type);  // "mxfp4", "int4", …

struct PackedMatrix {
  PackedType type = PackedType::kInt8;
  int rows = 0;
  int cols = 0;                        // a multiple of 32
  const std::uint8_t* data = nullptr;  // aligned to 64
};

constexpr int panels(int rows) { return (rows + kPanelRows - 1) / kPanelRows; }
std::size_t panel_bytes(PackedType type, int cols);
inline std::size_t packed_bytes(PackedType type, int rows, int cols) {
  return panels(rows) * panel_bytes(type, cols);
}

// Panels [begin, end) of the matrix. kMxfp4 takes MXFP4 (of either layout) as it is, exactly; all else is rounded.
void pack_panels(const WeightView& weight, PackedType type, int begin, int end, std::uint8_t* out);
// One number, the slow and obvious way.
float packed_at(const PackedMatrix& weight, int row, int col);

enum class ActivationBits : std::uint8_t { k15, k8 };

// Rows of activations, in tiles of 16: [tile][block][16 rows][32 values], so that a tile's inputs to one
// block lie together.
class QuantizedRows {
 public:
  // 8 bits are signed bytes. For 15 the instruction set in use at reset() decides: two planes of signed bytes
  // (x = scale x (256 high + low)) where it is AMX, which multiplies nothing wider, else 16-bit numbers, within each group
  // of four in the order 0, 2, 1, 3.
  enum class Form : std::uint8_t { kWide, kPlanes, kBytes };
  static Form form_of(ActivationBits bits);

  // Room for rows of so many columns; what was there is gone.
  void reset(int rows, int cols, ActivationBits bits = ActivationBits::k15);
  int rows() const { return rows_; }
  int cols() const { return cols_; }
  Form form() const { return form_; }
  void set_row(int row, const float* x);
  void copy_row(int row, const QuantizedRows& from, int from_row);  // of the same form

  std::size_t blocks() const { return static_cast<std::size_t>(cols_) / kPackedBlock; }
  // The number of a row's block, for what follows.
  std::size_t at(int row, std::size_t block) const {
    return (static_cast<std::size_t>(row / kTileRows) * blocks() + block) * kTileRows +
           static_cast<std::size_t>(row % kTileRows);
  }
  const std::int16_t* wide(std::size_t at) const { return wide_.data() + at * kPackedBlock; }
  const std::int8_t* high(std::size_t at) const { return high_.data() + at * kPackedBlock; }
  const std::int8_t* low(std::size_t at) const { return low_.data() + at * kPackedBlock; }
  const float* scale(std::size_t at) const { return scales_.data() + at; }
  const std::int8_t* byte(std::size_t at) const { return high(at); }
  int number(std::size_t at, int input) const;  // in any form
  // kBytes only: -12 times the sum of the inputs 0 and 1 of all groups in the low half, of the inputs 2 and 3 in the high
  // one.
  const std::int32_t* pair_correction(std::size_t at) const { return corrections_[k12].data() + at; }
  // kPlanes only: minus an offset of stored numbers times the block's sum.
  enum Offset { k12, k128, k8 };
  const std::int32_t* correction(Offset offset, std::size_t at) const {
    return corrections_[offset].data() + at;
  }
  static constexpr int kTileRows = 16;

 private:
  void set_bytes(std::size_t place, const float* x);

  int rows_ = 0;
  int cols_ = 0;
  Form form_ = Form::kWide;
  std::vector<std::int16_t> wide_;
  std::vector<std::int8_t> high_, low_;
  std::vector<float> scales_;
  std::array<std::vector<std::int32_t>, 3> corrections_;
};

struct PackedTask {
  PackedMatrix weight;
  const float* bias = nullptr;  // [rows], or null
  const QuantizedRows* x = nullptr;  // of 8 bits only with kMxfp4
  int first = 0;  // of the rows of x; a multiple of QuantizedRows::kTileRows
  int tokens = 0;
  float* out = nullptr;  // [tokens, rows], rows out_stride apart
  std::size_t out_stride = 0;
  bool accumulate = false;
};
void packed_matmul(std::span<const PackedTask> tasks, ThreadPool& pool);
// The twin: panels [begin, end) of one task, one multiplication after the other.
void packed_panels_scalar(const PackedTask& task, int begin, int end);

// The instruction sets that the products are written for.
enum class Isa : std::uint8_t { kScalar, kAvx2, kAvx512Vnni, kAmx };
std::string_view isa_name(Isa isa);
Isa best_isa();  // of this machine
Isa current_isa();
// From now on; kInvalid for a name that is unknown or one that this machine lacks. "" and "auto": the best.
Result<void> use_isa(std::string_view name);

}  // namespace capstan::engine

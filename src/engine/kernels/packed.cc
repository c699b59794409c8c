// How it works: packing and the scalar twin follow the layout's definition number by number; products are
// spread over the pool by ranges of panels, and done by the file of the instruction set in use.
#include "engine/kernels/packed.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/assert.h"
#include "engine/kernels/packed_kernels.h"

namespace capstan::engine {
namespace {

constexpr int kGroups = kPackedBlock / 4;

std::uint16_t f16_from_f32(float value) {
  // Round to nearest even; scales are positive and within f16's range by construction.
  const auto half = static_cast<_Float16>(value);
  std::uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}

constexpr std::int32_t kOffsets[] = {12, 128, 8};  // as QuantizedRows::Offset

// Where the number of (row, input) of a block lies.
struct Place {
  std::size_t byte = 0;
  int shift = 0;
};
Place place_of(PackedType type, int row, int input) {
  const int group = input / 4;
  const std::size_t within = static_cast<std::size_t>(row) * 4 + static_cast<std::size_t>(input % 4);
  if (type == PackedType::kInt8) return {static_cast<std::size_t>(group) * 64 + within, 0};
  return {static_cast<std::size_t>(group % (kGroups / 2)) * 64 + within, group < kGroups / 2 ? 0 : 4};
}

// Rounds 32 inputs of one row to integers of at most `largest`; returns the scale as stored.
std::uint16_t round_block(const float* values, int largest, int* rounded) {
  float most = 0;
  for (int i = 0; i < kPackedBlock; ++i) most = std::max(most, std::abs(values[i]));
  const auto limit = static_cast<float>(largest);
  const std::uint16_t bits = f16_from_f32(most / limit);
  const float scale = f32_from_f16(bits);
  for (int i = 0; i < kPackedBlock; ++i)
    rounded[i] =
        scale > 0 ? static_cast<int>(std::clamp(std::nearbyint(values[i] / scale), -limit, limit)) : 0;
  return bits;
}

void put(PackedType type, int lane, int input, int stored, std::uint8_t* numbers) {
  const Place place = place_of(type, lane, input);
  numbers[place.byte] |= static_cast<std::uint8_t>(stored << place.shift);
}

void pack_row_of_block(const WeightView& weight, PackedType type, int row, int block, std::uint8_t* scales,
                       std::uint8_t* numbers) {
  const int lane = row % kPanelRows;
  if (type == PackedType::kMxfp4) {
    const Mxfp4Block from = mxfp4_block(weight, row, block);
    scales[lane] = from.scale;
    for (int i = 0; i < kPackedBlock; ++i) {
      const std::uint8_t byte = from.pairs[i / 2];
      put(type, lane, i, i % 2 == 0 ? byte & 15 : byte >> 4, numbers);
    }
    return;
  }
  float values[kPackedBlock];
  for (int i = 0; i < kPackedBlock; ++i) values[i] = weight_at(weight, row, block * kPackedBlock + i);
  int rounded[kPackedBlock];
  const int largest = type == PackedType::kInt8 ? 127 : type == PackedType::kInt4 ? 7 : 127 * 16;
  const std::uint16_t scale = round_block(values, largest, rounded);
  std::memcpy(scales + 2 * lane, &scale, 2);
  for (int i = 0; i < kPackedBlock; ++i) {
    if (type == PackedType::kInt12) {
      const int high = (rounded[i] + 8) >> 4;
      put(PackedType::kInt8, lane, i, high + 128, numbers);
      put(PackedType::kInt4, lane, i, rounded[i] - 16 * high + 8, numbers + kHighBytes);
    } else {
      put(type, lane, i, rounded[i] + (type == PackedType::kInt8 ? 128 : 8), numbers);
    }
  }
}

float scale_at(PackedType type, const std::uint8_t* scales, int lane) {
  if (type == PackedType::kMxfp4) return std::bit_cast<float>(static_cast<std::uint32_t>(scales[lane]) << 23);
  std::uint16_t bits;
  std::memcpy(&bits, scales + 2 * lane, 2);
  return f32_from_f16(bits);
}

int number_at(PackedType type, const std::uint8_t* numbers, int lane, int input) {
  if (type == PackedType::kInt12)
    return 16 * number_at(PackedType::kInt8, numbers, lane, input) +
           number_at(PackedType::kInt4, numbers + kHighBytes, lane, input);
  const Place place = place_of(type, lane, input);
  const std::uint8_t byte = numbers[place.byte];
  if (type == PackedType::kInt8) return byte - 128;
  const int nibble = byte >> place.shift & 15;
  return type == PackedType::kMxfp4 ? kFp4Offset[nibble] - 12 : nibble - 8;
}

}  // namespace

std::string_view packed_type_name(PackedType type) {
  constexpr std::string_view kNames[] = {"mxfp4", "int8", "int4", "int12"};
  return kNames[static_cast<int>(type)];
}

std::size_t panel_bytes(PackedType type, int cols) { return PanelShape(type, cols).bytes; }

void pack_panels(const WeightView& weight, PackedType type, int begin, int end, std::uint8_t* out) {
  CAPSTAN_ASSERT(weight.cols % kPackedBlock == 0);
  CAPSTAN_ASSERT(type != PackedType::kMxfp4 || weight.is_mxfp4());
  const PanelShape shape(type, weight.cols);
  std::memset(out, 0, static_cast<std::size_t>(end - begin) * shape.bytes);
  for (int panel = begin; panel < end; ++panel, out += shape.bytes) {
    const int last = std::min(weight.rows, (panel + 1) * kPanelRows);
    for (int row = panel * kPanelRows; row < last; ++row) {
      for (std::size_t block = 0; block < shape.blocks; ++block) {
        pack_row_of_block(weight, type, row, static_cast<int>(block), out + block * shape.scale_bytes,
                          out + shape.numbers_at + block * shape.number_bytes);
      }
    }
  }
}

float packed_at(const PackedMatrix& weight, int row, int col) {
  const PanelShape shape(weight.type, weight.cols);
  const std::uint8_t* panel = weight.data + static_cast<std::size_t>(row / kPanelRows) * shape.bytes;
  const auto block = static_cast<std::size_t>(col / kPackedBlock);
  const int number = number_at(weight.type, panel + shape.numbers_at + block * shape.number_bytes,
                               row % kPanelRows, col % kPackedBlock);
  return static_cast<float>(number) *
         scale_at(weight.type, panel + block * shape.scale_bytes, row % kPanelRows) * shape.factor;
}

namespace {

QuantizedBlock quantize_block_scalar(const float* x, std::int8_t* high, std::int8_t* low) {
  float most = 0;
  for (int i = 0; i < kPackedBlock; ++i) most = std::max(most, std::abs(x[i]));
  const float inverse = most > 0 ? kActivationMax / most : 0;
  QuantizedBlock out{most / kActivationMax, 0};
  for (int i = 0; i < kPackedBlock; ++i) {
    const auto q = static_cast<std::int32_t>(std::nearbyint(x[i] * inverse));
    const std::int32_t top = (q + 128) >> 8;
    high[i] = static_cast<std::int8_t>(top);
    low[i] = static_cast<std::int8_t>(q - 256 * top);
    out.sum += q;
  }
  return out;
}

std::atomic<Isa>& chosen_isa() {
  static std::atomic<Isa> isa{best_isa()};
  return isa;
}

// Below this many weights times tokens a range of panels is not worth a hand-off.
constexpr double kWorkPerRangeMin = 600e3;

}  // namespace

std::uint8_t* thread_scratch(std::size_t bytes) {
  static thread_local std::vector<std::uint8_t> buffer;
  if (buffer.size() < bytes + 64) buffer.resize(bytes + 64);
  return buffer.data() + (64 - reinterpret_cast<std::uintptr_t>(buffer.data()) % 64) % 64;
}

void QuantizedRows::reset(int rows, int cols) {
  CAPSTAN_ASSERT(cols % kPackedBlock == 0);
  rows_ = rows;
  cols_ = cols;
  const std::size_t count =
      static_cast<std::size_t>((rows + kTileRows - 1) / kTileRows) * kTileRows * blocks();
  const auto grow = [](auto& vector, std::size_t size) {
    if (vector.size() < size) vector.resize(size);
  };
  grow(high_, count * kPackedBlock);
  grow(low_, count * kPackedBlock);
  grow(scales_, count);
  for (auto& corrections : corrections_) grow(corrections, count);
}

void QuantizedRows::set_row(int row, const float* x) {
  const auto quantize = current_isa() >= Isa::kAvx512Vnni ? quantize_block_avx512 : quantize_block_scalar;
  for (std::size_t block = 0; block < blocks(); ++block) {
    const std::size_t place = at(row, block), first = place * kPackedBlock;
    const QuantizedBlock made = quantize(x + block * kPackedBlock, high_.data() + first, low_.data() + first);
    scales_[place] = made.scale;
    for (std::size_t i = 0; i < corrections_.size(); ++i) corrections_[i][place] = -kOffsets[i] * made.sum;
  }
}

void QuantizedRows::copy_row(int row, const QuantizedRows& from, int from_row) {
  for (std::size_t block = 0; block < blocks(); ++block) {
    const std::size_t to = at(row, block), source = from.at(from_row, block);
    std::memcpy(high_.data() + to * kPackedBlock, from.high_.data() + source * kPackedBlock, kPackedBlock);
    std::memcpy(low_.data() + to * kPackedBlock, from.low_.data() + source * kPackedBlock, kPackedBlock);
    scales_[to] = from.scales_[source];
    for (std::size_t i = 0; i < corrections_.size(); ++i) corrections_[i][to] = from.corrections_[i][source];
  }
}

namespace {

// The integers of one row and token of a block: 256 times the products with the high bytes, and those with
// the low ones.
std::int32_t block_sum(PackedType type, const std::uint8_t* numbers, int lane, const QuantizedRows& x,
                       std::size_t place) {
  std::int32_t high = 0, low = 0;
  for (int i = 0; i < kPackedBlock; ++i) {
    const int number = number_at(type, numbers, lane, i);
    high += x.high(place)[i] * number;
    low += x.low(place)[i] * number;
  }
  return 256 * high + low;
}

float block_value(PackedType type, const std::uint8_t* numbers, int lane, const QuantizedRows& x,
                  std::size_t place) {
  if (type != PackedType::kInt12) return static_cast<float>(block_sum(type, numbers, lane, x, place));
  return std::fma(static_cast<float>(block_sum(PackedType::kInt8, numbers, lane, x, place)), 16.0f,
                  static_cast<float>(block_sum(PackedType::kInt4, numbers + kHighBytes, lane, x, place)));
}

}  // namespace

void packed_panels_scalar(const PackedTask& task, int begin, int end) {
  const PackedMatrix& weight = task.weight;
  const PanelShape shape(weight.type, weight.cols);
  for (int panel = begin; panel < end; ++panel) {
    const std::uint8_t* at = weight.data + static_cast<std::size_t>(panel) * shape.bytes;
    for (int token = 0; token < task.tokens; ++token) {
      float sums[kPanelRows] = {};
      for (std::size_t block = 0; block < shape.blocks; ++block) {
        const std::size_t place = task.x->at(task.first + token, block);
        const std::uint8_t* numbers = at + shape.numbers_at + block * shape.number_bytes;
        const float scale = *task.x->scale(place) * shape.factor;
        for (int lane = 0; lane < kPanelRows; ++lane) {
          const float both = scale_at(weight.type, at + block * shape.scale_bytes, lane) * scale;
          sums[lane] = std::fma(block_value(weight.type, numbers, lane, *task.x, place), both, sums[lane]);
        }
      }
      store_panel(task, panel, token, sums);
    }
  }
}

void packed_matmul(std::span<const PackedTask> tasks, ThreadPool& pool) {
  struct Range {
    const PackedTask* task;
    int begin;
    int end;
  };
  static thread_local std::vector<Range> ranges;
  ranges.clear();
  for (const PackedTask& task : tasks) {
    if (task.tokens == 0) continue;
    CAPSTAN_ASSERT(task.x->cols() == task.weight.cols && task.first + task.tokens <= task.x->rows());
    CAPSTAN_ASSERT(task.first % QuantizedRows::kTileRows == 0);
    const double per_panel = static_cast<double>(kPanelRows) * task.weight.cols * std::max(task.tokens, 2);
    const int size = std::max(1, static_cast<int>(kWorkPerRangeMin / per_panel));
    for (int panel = 0; panel < panels(task.weight.rows); panel += size)
      ranges.push_back({&task, panel, std::min(panels(task.weight.rows), panel + size)});
  }
  constexpr decltype(&packed_panels_scalar) kRun[] = {packed_panels_scalar, packed_panels_avx2,
                                                      packed_panels_avx512, packed_panels_amx};
  const auto run = kRun[static_cast<int>(current_isa())];
  const std::vector<Range>& list = ranges;  // the caller's; helpers have their own
  pool.parallel_for(static_cast<int>(list.size()), [&list, run](int i) {
    const Range& range = list[static_cast<std::size_t>(i)];
    run(*range.task, range.begin, range.end);
  });
}

std::string_view isa_name(Isa isa) {
  constexpr std::string_view kNames[] = {"scalar", "avx2", "avx512-vnni", "amx"};
  return kNames[static_cast<int>(isa)];
}

Isa best_isa() {
#if defined(__x86_64__)
  if (amx_is_granted()) return Isa::kAmx;
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::kAvx512Vnni;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    return Isa::kAvx2;
#endif
  return Isa::kScalar;
}

Isa current_isa() { return chosen_isa().load(std::memory_order_relaxed); }

Result<void> use_isa(std::string_view name) {
  if (name.empty() || name == "auto") {
    chosen_isa() = best_isa();
    return {};
  }
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAmx}) {
    if (name != isa_name(isa)) continue;
    if (isa > best_isa())
      return fail(Code::kInvalid, "this machine has no {}; its best is {}", name, isa_name(best_isa()));
    chosen_isa() = isa;
    return {};
  }
  return fail(Code::kInvalid,
              "no instruction set is called '{}'; there are auto, amx, avx512-vnni, avx2, scalar", name);
}

}  // namespace capstan::engine

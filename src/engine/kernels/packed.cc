// How it works: packing and the scalar twin follow the layout's definition number by number; products are
// spread over the pool by ranges of panels, and done by the file of the instruction set in use. Each thread begins with
// ranges that lie one after the other, so that memory is read in one go, and then takes the last ones of others.
#include "engine/kernels/packed.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "engine/kernels/packed_kernels.h"

namespace capstan::engine {
namespace {

std::uint16_t f16_from_f32(float value) {
  // Round to nearest even; scales are positive and within f16's range by construction.
  const auto half = static_cast<_Float16>(value);
  std::uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}

constexpr std::int32_t kOffsets[] = {12, 128, 8};  // as QuantizedRows::Offset

// Where the number of (row, input) of a block lies, among numbers of so many bits.
struct Place {
  std::size_t byte = 0;
  int shift = 0;
};
Place place_of(std::size_t bits, int row, int input) {
  const int lines = static_cast<int>(bits), group = input / 4;
  return {static_cast<std::size_t>(group % lines * 64 + row * 4 + input % 4), group / lines * lines};
}

int largest_of(PackedType type) {
  return ((1 << (high_bits(type) - 1)) - 1) << low_bits(type);
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

// Rounds 32 inputs of one row to MXFP4, with the scale, of the two that the largest allows, that loses less.
Mxfp4Block round_mxfp4(const float* values) {
  float most = 0;
  for (int i = 0; i < kPackedBlock; ++i) most = std::max(most, std::abs(values[i]));
  Mxfp4Block best{};
  float best_loss = INFINITY;
  // 6 × 2^least is at least three quarters of the largest.
  const int least = most > 0 ? std::min(std::ilogb(most), 127) - 2 : 0;
  for (int exponent = least; exponent <= least + 1; ++exponent) {
    Mxfp4Block made{};
    made.scale = static_cast<std::uint8_t>(std::clamp(exponent + 127, 1, 254));
    const float inverse = std::ldexp(1.0f, 127 - made.scale);
    int nibbles[kPackedBlock];
    float losses[kPackedBlock];
    for (int i = 0; i < kPackedBlock; ++i) {  // without branches, so that many go at once
      const float size = std::abs(values[i]) * inverse;
      const int halves = (size > 0.25f) + (size > 0.75f) + (size > 1.25f) + (size > 1.75f);  // 0 to 2 by halves, then 3, 4, 6
      const int ones = (size > 2.5f) + (size > 3.5f), two = size > 5.0f;
      const float off = size - (0.5f * static_cast<float>(halves) + static_cast<float>(ones + 2 * two));
      nibbles[i] = halves + ones + two + (values[i] < 0 ? 8 : 0);
      losses[i] = off * off;
    }
    float loss = 0;
    for (int i = 0; i < kPackedBlock; ++i) {
      loss += losses[i];
      made.pairs[i / 2] |= static_cast<std::uint8_t>(nibbles[i] << i % 2 * 4);
    }
    loss /= inverse * inverse;
    if (loss < best_loss) best = made, best_loss = loss;
  }
  return best;
}

void put(std::size_t bits, int lane, int input, int stored, std::uint8_t* numbers) {
  const Place place = place_of(bits, lane, input);
  numbers[place.byte] |= static_cast<std::uint8_t>(stored << place.shift);
}

void pack_row_of_block(const WeightView& weight, PackedType type, int row, int block, std::uint8_t* scales,
                       std::uint8_t* numbers) {
  const int lane = row % kPanelRows;
  float values[kPackedBlock];
  if (!(type == PackedType::kMxfp4 && weight.is_mxfp4())) {
    for (int i = 0; i < kPackedBlock; ++i) values[i] = weight_at(weight, row, block * kPackedBlock + i);
  }
  if (type == PackedType::kMxfp4) {
    const Mxfp4Block from = weight.is_mxfp4() ? mxfp4_block(weight, row, block) : round_mxfp4(values);
    scales[lane] = from.scale;
    for (int i = 0; i < kPackedBlock; ++i) {
      const std::uint8_t byte = from.pairs[i / 2];
      put(4, lane, i, i % 2 == 0 ? byte & 15 : byte >> 4, numbers);
    }
    return;
  }
  int rounded[kPackedBlock];
  const std::uint16_t scale = round_block(values, largest_of(type), rounded);
  std::memcpy(scales + 2 * lane, &scale, 2);
  const std::size_t high = high_bits(type), low = low_bits(type);
  for (int i = 0; i < kPackedBlock; ++i) {
    const int stored = rounded[i] + (1 << (high - 1 + low));
    put(high, lane, i, stored >> low, numbers);
    if (low > 0) put(low, lane, i, stored & ((1 << low) - 1), numbers + kHighBytes);
  }
}

float scale_at(PackedType type, const std::uint8_t* scales, int lane) {
  if (type == PackedType::kMxfp4) return std::bit_cast<float>(static_cast<std::uint32_t>(scales[lane]) << 23);
  std::uint16_t bits;
  std::memcpy(&bits, scales + 2 * lane, 2);
  return f32_from_f16(bits);
}

int stored_at(std::size_t bits, const std::uint8_t* numbers, int lane, int input) {
  const Place place = place_of(bits, lane, input);
  return numbers[place.byte] >> place.shift & ((1 << bits) - 1);
}

int number_at(PackedType type, const std::uint8_t* numbers, int lane, int input) {
  const std::size_t high = high_bits(type), low = low_bits(type);
  const int first = stored_at(high, numbers, lane, input);
  if (type == PackedType::kMxfp4) return kFp4Offset[first] - 12;
  const int value = (first - (1 << (high - 1))) * (1 << low);
  return low == 0 ? value : value + stored_at(low, numbers + kHighBytes, lane, input);
}

}  // namespace

std::string_view packed_type_name(PackedType type) {
  constexpr std::string_view kNames[] = {"mxfp4", "int4", "int8", "int10", "int12"};
  return kNames[static_cast<int>(type)];
}

std::size_t panel_bytes(PackedType type, int cols) { return PanelShape(type, cols).bytes; }

void pack_panels(const WeightView& weight, PackedType type, int begin, int end, std::uint8_t* out) {
  CAPSTAN_ASSERT(weight.cols % kPackedBlock == 0);
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

constexpr int kWideOrder[] = {0, 2, 1, 3};

void quantize_block_scalar(const float* x, std::int16_t* wide, float* scale) {
  float most = 0;
  for (int i = 0; i < kPackedBlock; ++i) most = std::max(most, std::abs(x[i]));
  const float inverse = activation_inverse(most, kActivationMax);
  *scale = most / kActivationMax;
  for (int i = 0; i < kPackedBlock; ++i)
    wide[i] = static_cast<std::int16_t>(std::nearbyint(x[i / 4 * 4 + kWideOrder[i % 4]] * inverse));
}

void quantize_bytes_scalar(const float* x, std::int8_t* bytes, float* scale) {
  float most = 0;
  for (int i = 0; i < kPackedBlock; ++i) most = std::max(most, std::abs(x[i]));
  const float inverse = activation_inverse(most, kByteActivationMax);
  *scale = most / kByteActivationMax;
  for (int i = 0; i < kPackedBlock; ++i) bytes[i] = static_cast<std::int8_t>(std::nearbyint(x[i] * inverse));
}

// Numbers 0 to count - 1, dealt to some shares; each number is taken once. Any thread may take for any share.
class Shares {
 public:
  void reset(int numbers, int most) {
    const int count = std::clamp(numbers, 1, most);
    if (count != this->count()) rests_ = std::vector<Rest>(static_cast<std::size_t>(count));
    std::int64_t begin = 0;
    for (int i = 0; i < count; ++i) {
      const std::int64_t end = std::int64_t{numbers} * (i + 1) / count;
      rests_[static_cast<std::size_t>(i)].range.store(packed(begin, end), std::memory_order_relaxed);
      begin = end;
    }
  }
  int count() const { return static_cast<int>(rests_.size()); }
  // The next of the share's own numbers, or the last of another's, or -1.
  int take(int share) {
    for (int i = 0; i < count(); ++i) {
      std::atomic<std::uint64_t>& range = rests_[static_cast<std::size_t>((share + i) % count())].range;
      std::uint64_t rest = range.load(std::memory_order_relaxed);
      for (;;) {
        const auto begin = static_cast<std::uint32_t>(rest), end = static_cast<std::uint32_t>(rest >> 32);
        if (begin >= end) break;
        const std::uint64_t less = i == 0 ? packed(begin + 1, end) : packed(begin, end - 1);
        if (range.compare_exchange_weak(rest, less, std::memory_order_relaxed)) return static_cast<int>(i == 0 ? begin : end - 1);
      }
    }
    return -1;
  }

 private:
  struct alignas(64) Rest {
    std::atomic<std::uint64_t> range{0};  // begin, and end in the upper half
  };
  static std::uint64_t packed(std::int64_t begin, std::int64_t end) {
    return static_cast<std::uint64_t>(begin) | static_cast<std::uint64_t>(end) << 32;
  }
  std::vector<Rest> rests_;
};

std::atomic<Isa>& chosen_isa() {
  static std::atomic<Isa> isa{best_isa()};
  return isa;
}

// Below this many weights times tokens a range of panels is not worth a hand-off.
constexpr double kWorkPerRangeMin = 600e3;
constexpr int kRangesPerThread = 8;     // so that all threads end at about the same time
constexpr int kTokensTogetherMin = 12;  // from so many on a range has kPanelsTogether, whose inputs are cached once

}  // namespace

std::uint8_t* thread_scratch(std::size_t bytes) {
  static thread_local std::vector<std::uint8_t> buffer;
  if (buffer.size() < bytes + 64) buffer.resize(bytes + 64);
  return buffer.data() + (64 - reinterpret_cast<std::uintptr_t>(buffer.data()) % 64) % 64;
}

QuantizedRows::Form QuantizedRows::form_of(ActivationBits bits) {
  if (bits == ActivationBits::k8) return Form::kBytes;
  return current_isa() == Isa::kAmx ? Form::kPlanes : Form::kWide;
}

void QuantizedRows::reset(int rows, int cols, ActivationBits bits) {
  CAPSTAN_ASSERT(cols % kPackedBlock == 0);
  rows_ = rows;
  cols_ = cols;
  form_ = form_of(bits);
  const std::size_t count =
      static_cast<std::size_t>((rows + kTileRows - 1) / kTileRows) * kTileRows * blocks();
  const auto grow = [](auto& vector, std::size_t size) {
    if (vector.size() < size) vector.resize(size);
  };
  grow(scales_, count);
  if (form_ == Form::kWide) return grow(wide_, count * kPackedBlock);
  grow(high_, count * kPackedBlock);
  if (form_ == Form::kBytes) return grow(corrections_[k12], count);
  grow(low_, count * kPackedBlock);
  for (auto& corrections : corrections_) grow(corrections, count);
}

void QuantizedRows::set_row(int row, const float* x) {
  const auto quantize_wide = current_isa() == Isa::kScalar ? quantize_block_scalar : quantize_block_avx2;
  for (std::size_t block = 0; block < blocks(); ++block, x += kPackedBlock) {
    const std::size_t place = at(row, block), first = place * kPackedBlock;
    if (form_ == Form::kBytes) {
      set_bytes(place, x);
      continue;
    }
    if (form_ == Form::kWide) {
      quantize_wide(x, wide_.data() + first, scales_.data() + place);
      continue;
    }
    const QuantizedBlock made = quantize_block_avx512(x, high_.data() + first, low_.data() + first);
    scales_[place] = made.scale;
    for (std::size_t i = 0; i < corrections_.size(); ++i) corrections_[i][place] = -kOffsets[i] * made.sum;
  }
}

void QuantizedRows::set_bytes(std::size_t place, const float* x) {
  std::int8_t* bytes = high_.data() + place * kPackedBlock;
  (current_isa() == Isa::kScalar ? quantize_bytes_scalar : quantize_bytes_avx2)(x, bytes, scales_.data() + place);
  int first = 0, second = 0;
  for (int i = 0; i < kPackedBlock; i += 4) {
    first += bytes[i] + bytes[i + 1];
    second += bytes[i + 2] + bytes[i + 3];
  }
  const auto pair = [](int sum) { return static_cast<std::uint32_t>(static_cast<std::uint16_t>(-kOffsets[k12] * sum)); };
  corrections_[k12][place] = static_cast<std::int32_t>(pair(first) | pair(second) << 16);
}

void QuantizedRows::copy_row(int row, const QuantizedRows& from, int from_row) {
  CAPSTAN_ASSERT(form_ == from.form_);
  for (std::size_t block = 0; block < blocks(); ++block) {
    const std::size_t to = at(row, block), source = from.at(from_row, block);
    const auto copy = [&](auto& into, const auto& out_of) {
      std::copy_n(out_of.data() + source * kPackedBlock, kPackedBlock, into.data() + to * kPackedBlock);
    };
    scales_[to] = from.scales_[source];
    if (form_ == Form::kWide) {
      copy(wide_, from.wide_);
      continue;
    }
    copy(high_, from.high_);
    if (form_ == Form::kBytes) {
      corrections_[k12][to] = from.corrections_[k12][source];
      continue;
    }
    copy(low_, from.low_);
    for (std::size_t i = 0; i < corrections_.size(); ++i) corrections_[i][to] = from.corrections_[i][source];
  }
}

int QuantizedRows::number(std::size_t at, int input) const {
  if (form_ == Form::kBytes) return byte(at)[input];
  if (form_ == Form::kPlanes) return 256 * high(at)[input] + low(at)[input];
  return wide(at)[input / 4 * 4 + kWideOrder[input % 4]];
}

void packed_panels_scalar(const PackedTask& task, int begin, int end) {
  const PackedMatrix& weight = task.weight;
  const PanelShape shape(weight.type, weight.cols);
  for (int panel = begin; panel < end; ++panel) {
    const std::uint8_t* at = weight.data + static_cast<std::size_t>(panel) * shape.bytes;
    const std::size_t bytes = static_cast<std::size_t>(task.tokens) * kPanelRows * sizeof(float);
    auto* sums = reinterpret_cast<float*>(thread_scratch(bytes));
    std::fill_n(sums, bytes / sizeof(float), 0.0f);
    for (std::size_t block = 0; block < shape.blocks; ++block) {
      std::int32_t numbers[kPanelRows][kPackedBlock];
      for (int lane = 0; lane < kPanelRows; ++lane) {
        for (int i = 0; i < kPackedBlock; ++i)
          numbers[lane][i] = number_at(weight.type, at + shape.numbers_at + block * shape.number_bytes, lane, i);
      }
      for (int token = 0; token < task.tokens; ++token) {
        const std::size_t place = task.x->at(task.first + token, block);
        const float scale = *task.x->scale(place) * shape.factor;
        std::int32_t x[kPackedBlock];
        for (int i = 0; i < kPackedBlock; ++i) x[i] = task.x->number(place, i);
        for (int lane = 0; lane < kPanelRows; ++lane) {
          std::int32_t sum = 0;
          for (int i = 0; i < kPackedBlock; ++i) sum += numbers[lane][i] * x[i];
          const float both = scale_at(weight.type, at + block * shape.scale_bytes, lane) * scale;
          float& to = sums[token * kPanelRows + lane];
          to = std::fma(static_cast<float>(sum), both, to);
        }
      }
    }
    for (int token = 0; token < task.tokens; ++token)
      store_panel(task, panel, token, sums + static_cast<std::ptrdiff_t>(token) * kPanelRows);
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
  int all_panels = 0;
  for (const PackedTask& task : tasks) all_panels += task.tokens == 0 ? 0 : panels(task.weight.rows);
  const int fair = std::clamp(all_panels / (kRangesPerThread * pool.threads()), 1, kPanelsTogether);
  for (const PackedTask& task : tasks) {
    if (task.tokens == 0) continue;
    CAPSTAN_ASSERT(task.x->cols() == task.weight.cols && task.first + task.tokens <= task.x->rows());
    CAPSTAN_ASSERT(task.first % QuantizedRows::kTileRows == 0);
    const bool bytes = task.x->form() == QuantizedRows::Form::kBytes;
    CAPSTAN_ASSERT(bytes ? task.weight.type == PackedType::kMxfp4
                         : task.x->form() == QuantizedRows::form_of(ActivationBits::k15));
    const double per_panel = static_cast<double>(kPanelRows) * task.weight.cols * std::max(task.tokens, 2);
    const int least = task.tokens >= kTokensTogetherMin ? kPanelsTogether : fair;
    const int size = std::max(least, static_cast<int>(kWorkPerRangeMin / per_panel));
    for (int panel = 0; panel < panels(task.weight.rows); panel += size)
      ranges.push_back({&task, panel, std::min(panels(task.weight.rows), panel + size)});
  }
  constexpr decltype(&packed_panels_scalar) kRun[] = {packed_panels_scalar, packed_panels_avx2,
                                                      packed_panels_avx512, packed_panels_amx};
  const auto run = kRun[static_cast<int>(current_isa())];
  static thread_local Shares shares;
  shares.reset(static_cast<int>(ranges.size()), pool.threads());
  // The caller's; helpers have their own.
  pool.parallel_for(shares.count(), [&list = std::as_const(ranges), &shares = shares, run](int share) {
    for (int i = shares.take(share); i >= 0; i = shares.take(share)) {
      const Range& range = list[static_cast<std::size_t>(i)];
      run(*range.task, range.begin, range.end);
    }
  });
}

std::string_view isa_name(Isa isa) {
  constexpr std::string_view kNames[] = {"scalar", "avx2", "avx512-vnni", "amx"};
  return kNames[static_cast<int>(isa)];
}

Isa best_isa() {
#if defined(__x86_64__)
  const auto has_avx512 = [] {  // and that the system keeps its registers
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  };
  if (has_avx512()) return amx_is_granted() ? Isa::kAmx : Isa::kAvx512Vnni;
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

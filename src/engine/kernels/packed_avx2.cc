// How it works. With 15-bit inputs (Wide) a block's numbers become signed 16-bit ones, for each group of four inputs two
// vectors of eight rows: inputs 0 and 2, inputs 1 and 3. VPMADDWD with the two inputs of a token broadcast gives eight
// rows' sums in 32 bits. With 8-bit inputs (Bytes, MXFP4 alone) numbers become unsigned bytes, value + 12, and VPMADDUBSW
// meets four inputs of eight rows at once; sums stay in 16 bits, modulo 2^16, and begin at minus 12 times the inputs' sum:
// what they end as is 16 * 12 * 127 at most. After a block one conversion and one FMA with both scales.
//
// Few tokens take numbers as they are unpacked, at most six at once. For more, some blocks of a panel are unpacked into the
// first-level cache and met with a group of tokens, whose inputs to these blocks stay there while the next panels are met.
// The order of f32 additions is that of the blocks either way. Compiled for AVX2, FMA and F16C; only called where the machine
// has them.
#include <immintrin.h>

#include "engine/kernels/packed_kernels.h"

namespace capstan::engine {
namespace {

constexpr int kGroups = kPackedBlock / 4;
constexpr int kHalves = 2;  // of a panel, eight rows each
constexpr int kLineBytes = 32 * kHalves;
constexpr int kSlabBlocks = 4;  // unpacked at a time
constexpr int kSlabTokensMin = 11, kSlabTokensMax = 128;  // with it; more tokens unpack it again
constexpr int kInputsCachedBytes = 16 << 10;  // all inputs of so few tokens stay cached: panel by panel
constexpr std::size_t kTokenStride = kPackedBlock;  // in QuantizedRows, within a tile's block

inline __m256i load(const void* at) { return _mm256_load_si256(static_cast<const __m256i*>(at)); }

template <PackedType kType>
inline __m256 block_scale(const std::uint8_t* scales, int half) {
  if constexpr (kType == PackedType::kMxfp4) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + 8 * half));
    return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23)),
                         _mm256_set1_ps(0.5f));
  } else {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + 16 * half)));
  }
}

// One group's numbers of eight rows, inputs 0 and 2 and inputs 1 and 3.
struct Numbers {
  __m256i even, odd;
};
template <PackedType kType>
inline Numbers numbers_of(const std::uint8_t* numbers, int half, int group) {
  constexpr int kLow = low_bits(kType);
  if constexpr (high_bits(kType) == 4) {
    const __m256i both = load(numbers + 64 * (group % 4) + 32 * half);
    const __m256i nibbles =
        _mm256_and_si256(group < 4 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
    __m256i bytes;
    if constexpr (kType == PackedType::kMxfp4) {
      const __m256i doubled = _mm256_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12,  //
                                               0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
      bytes = _mm256_shuffle_epi8(doubled, nibbles);
    } else {
      bytes = _mm256_sub_epi8(nibbles, _mm256_set1_epi8(8));
    }
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
  } else {
    const __m256i bytes = _mm256_xor_si256(load(numbers + 64 * group + 32 * half),
                                           _mm256_set1_epi8(static_cast<char>(0x80)));
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8 - kLow);
    if constexpr (kLow == 0) {
      return {even, _mm256_srai_epi16(bytes, 8)};
    } else {
      const int lines = kLow, shift = group / lines * kLow;
      const __m256i line = load(numbers + kHighBytes + 64 * (group % lines) + 32 * half);
      const __m256i mask = _mm256_set1_epi16((1 << kLow) - 1);
      const __m256i odd = _mm256_andnot_si256(mask, _mm256_srai_epi16(bytes, 8 - kLow));
      return {_mm256_or_si256(even, _mm256_and_si256(_mm256_srli_epi16(line, shift), mask)),
              _mm256_or_si256(odd, _mm256_and_si256(_mm256_srli_epi16(line, shift + 8), mask))};
    }
  }
}

// Four bytes of a token, for all rows.
CAPSTAN_INLINE __m256i broadcast(const void* inputs) {
  std::int32_t bytes;
  __builtin_memcpy(&bytes, inputs, 4);
  return _mm256_set1_epi32(bytes);
}

// Both sums += products of pairs, in 32 bits from words and in 16 bits from unsigned and signed bytes, with a token's four
// bytes for all rows. As one piece each: g++ would gather products first and then, out of registers, keep a sum in memory,
// whose way there and back is longer than the loop.
using FourBytes [[gnu::may_alias, gnu::aligned(1)]] = std::int32_t;
CAPSTAN_INLINE void add_words(__m256i (&sums)[kHalves], __m256i w0, __m256i w1, const void* inputs) {
  __m256i x, products;
  __asm__(
      "vpbroadcastd %6, %2\n\tvpmaddwd %2, %4, %3\n\tvpaddd %3, %0, %0\n\tvpmaddwd %2, %5, %2\n\tvpaddd %2, %1, %1"
      : "+x"(sums[0]), "+x"(sums[1]), "=&x"(x), "=&x"(products)
      : "x"(w0), "x"(w1), "m"(*static_cast<const FourBytes*>(inputs)));
}
CAPSTAN_INLINE void add_bytes(__m256i (&sums)[kHalves], __m256i w0, __m256i w1, const void* inputs) {
  __m256i x, products;
  __asm__(
      "vpbroadcastd %6, %2\n\tvpmaddubsw %2, %4, %3\n\tvpaddw %3, %0, %0\n\tvpmaddubsw %2, %5, %2\n\tvpaddw %2, %1, %1"
      : "+x"(sums[0]), "+x"(sums[1]), "=&x"(x), "=&x"(products)
      : "x"(w0), "x"(w1), "m"(*static_cast<const FourBytes*>(inputs)));
}

// Tokens that meet a block together: those from kSplit on lie in the next tile, so many places further.
template <int kTokens, int kSplit = kTokens>
struct Together {
  static constexpr int kCount = kTokens;
  std::size_t skip = 0;
  CAPSTAN_INLINE std::size_t place(int token) const { return static_cast<std::size_t>(token) + (token < kSplit ? 0 : skip); }
};

// 0, 4, 1, 5, …: of 4-bit numbers those of one line.
constexpr int group_at(int i) { return i / 2 + i % 2 * 4; }

// How 15-bit inputs meet numbers of a type. Unpacked: for each group a line of even inputs, then one of odd ones.
template <PackedType kType>
struct Wide {
  static constexpr PackedType kWeights = kType;
  static constexpr int kBlockBytes = 2 * kGroups * kLineBytes;
  static constexpr int kInputBytes = 2;

  static void unpack(const std::uint8_t* numbers, std::uint8_t* out) {
#pragma GCC unroll 8
    for (int i = 0; i < kGroups; ++i) {
      const int group = group_at(i);
      for (int half = 0; half < kHalves; ++half) {
        const Numbers w = numbers_of<kType>(numbers, half, group);
        auto* to = reinterpret_cast<__m256i*>(out + 2 * group * kLineBytes + 32 * half);
        _mm256_store_si256(to, w.even);
        _mm256_store_si256(to + kHalves, w.odd);
      }
    }
  }
  // Sums of a block's products, from the numbers as they are stored or unpacked.
  template <int kTokens>
  static CAPSTAN_INLINE void multiply_stored(const std::uint8_t* numbers, const QuantizedRows& x, std::size_t at,
                                             __m256i (*sums)[kHalves]) {
    const std::int16_t* inputs = x.wide(at);
    for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < kGroups; ++i) {
      const int group = group_at(i);
      const Numbers a = numbers_of<kType>(numbers, 0, group), b = numbers_of<kType>(numbers, 1, group);
      add_products(Together<kTokens>(), sums, a.even, b.even, inputs + 4 * group);
      add_products(Together<kTokens>(), sums, a.odd, b.odd, inputs + 4 * group + 2);
    }
  }
  template <class Tokens>
  static CAPSTAN_INLINE void multiply_unpacked(Tokens tokens, const std::uint8_t* numbers, const QuantizedRows& x, std::size_t at,
                                               __m256i (*sums)[kHalves]) {
    const std::int16_t* inputs = x.wide(at);
    for (int t = 0; t < Tokens::kCount; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 1
    for (int line = 0; line < 2 * kGroups; ++line)
      add_products(tokens, sums, load(numbers + line * kLineBytes), load(numbers + line * kLineBytes + 32), inputs + 2 * line);
  }

 private:
  template <class Tokens>
  static CAPSTAN_INLINE void add_products(Tokens tokens, __m256i (*sums)[kHalves], __m256i w0, __m256i w1,
                                          const std::int16_t* inputs) {
#pragma GCC unroll 8
    for (int t = 0; t < Tokens::kCount; ++t) add_words(sums[t], w0, w1, inputs + tokens.place(t) * kTokenStride);
  }
};

// How 8-bit inputs meet MXFP4's numbers. Unpacked: a line for each group.
struct Bytes {
  static constexpr PackedType kWeights = PackedType::kMxfp4;
  static constexpr int kBlockBytes = kGroups * kLineBytes;
  static constexpr int kInputBytes = 1;

  // Both groups of a line of stored numbers.
  static CAPSTAN_INLINE void offset_numbers(const std::uint8_t* line, __m256i& first, __m256i& second) {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kFp4Offset)));
    const __m256i mask = _mm256_set1_epi8(15), both = load(line);
    first = _mm256_shuffle_epi8(table, _mm256_and_si256(both, mask));
    second = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(both, 4), mask));
  }
  static void unpack(const std::uint8_t* numbers, std::uint8_t* out) {
#pragma GCC unroll 8
    for (int i = 0; i < kGroups; ++i) {
      __m256i first, second;
      offset_numbers(numbers + 32 * i, first, second);
      _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32 * i), first);
      _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32 * (i + kGroups)), second);
    }
  }
  template <int kTokens>
  static CAPSTAN_INLINE void multiply_stored(const std::uint8_t* numbers, const QuantizedRows& x, std::size_t at,
                                             __m256i (*sums)[kHalves]) {
    const std::int8_t* inputs = x.byte(at);
    start(Together<kTokens>(), x, at, sums);
#pragma GCC unroll 4
    for (int line = 0; line < kGroups / 2; ++line) {
      __m256i a0, a1, b0, b1;
      offset_numbers(numbers + line * kLineBytes, a0, a1);
      offset_numbers(numbers + line * kLineBytes + 32, b0, b1);
      add_products(Together<kTokens>(), sums, a0, b0, inputs + 4 * line);
      add_products(Together<kTokens>(), sums, a1, b1, inputs + 4 * (line + kGroups / 2));
    }
    widen<kTokens>(sums);
  }
  template <class Tokens>
  static CAPSTAN_INLINE void multiply_unpacked(Tokens tokens, const std::uint8_t* numbers, const QuantizedRows& x, std::size_t at,
                                               __m256i (*sums)[kHalves]) {
    const std::int8_t* inputs = x.byte(at);
    start(tokens, x, at, sums);
#pragma GCC unroll 1
    for (int line = 0; line < kGroups; ++line)
      add_products(tokens, sums, load(numbers + line * kLineBytes), load(numbers + line * kLineBytes + 32), inputs + 4 * line);
    widen<Tokens::kCount>(sums);
  }

 private:
  template <class Tokens>
  static CAPSTAN_INLINE void start(Tokens tokens, const QuantizedRows& x, std::size_t at, __m256i (*sums)[kHalves]) {
#pragma GCC unroll 8
    for (int t = 0; t < Tokens::kCount; ++t) sums[t][0] = sums[t][1] = broadcast(x.pair_correction(at + tokens.place(t)));
  }
  template <class Tokens>
  static CAPSTAN_INLINE void add_products(Tokens tokens, __m256i (*sums)[kHalves], __m256i w0, __m256i w1,
                                          const std::int8_t* inputs) {
#pragma GCC unroll 8
    for (int t = 0; t < Tokens::kCount; ++t) add_bytes(sums[t], w0, w1, inputs + tokens.place(t) * kTokenStride);
  }
  template <int kTokens>
  static CAPSTAN_INLINE void widen(__m256i (*sums)[kHalves]) {
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      for (int half = 0; half < kHalves; ++half) sums[t][half] = _mm256_madd_epi16(sums[t][half], ones);
    }
  }
};

CAPSTAN_INLINE __m256 scaled(__m256i sum, __m256 weight_scale, float scale, __m256 onto) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(weight_scale, _mm256_set1_ps(scale)), onto);
}

// As store_panel, whole panels at once.
inline void store_sums(const PackedTask& task, int panel, int token, const float* sums) {
  const int row = panel * kPanelRows;
  if (task.weight.rows - row < kPanelRows) return store_panel(task, panel, token, sums);
  float* out = task.out + static_cast<std::size_t>(token) * task.out_stride + row;
  for (int at = 0; at < kPanelRows; at += 8) {
    __m256 value = _mm256_load_ps(sums + at);
    if (task.bias != nullptr) value = _mm256_add_ps(value, _mm256_loadu_ps(task.bias + row + at));
    if (task.accumulate) value = _mm256_add_ps(_mm256_loadu_ps(out + at), value);
    _mm256_storeu_ps(out + at, value);
  }
}

// Of its own: taken into its callers, g++ spoils some of these loops by up to a third.
template <class How, int kTokens>
__attribute__((noinline)) void run_few(const PackedTask& task, const PanelShape& shape, const std::uint8_t* panel_at, int panel,
             int token) {
  constexpr std::size_t kNumberBytes = 64 * bits_of(How::kWeights);  // of a block
  std::size_t at = task.x->at(task.first + token, 0);
  const std::uint8_t* numbers = panel_at + shape.numbers_at;
  alignas(32) __m256 acc[kTokens][kHalves];
  for (auto& row : acc) row[0] = row[1] = _mm256_setzero_ps();
  for (std::size_t block = 0; block < shape.blocks; ++block) {
    for (std::size_t line = 0; line < kNumberBytes; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(numbers) + 4'096 + line, _MM_HINT_T0);
    __m256i sums[kTokens][kHalves];
    How::template multiply_stored<kTokens>(numbers, *task.x, at, sums);
    const std::uint8_t* weight_scales = panel_at + block * shape.scale_bytes;
    const __m256 s[kHalves] = {block_scale<How::kWeights>(weight_scales, 0),
                               block_scale<How::kWeights>(weight_scales, 1)};
    const float* scales = task.x->scale(at);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      for (int half = 0; half < kHalves; ++half)
        acc[t][half] = scaled(sums[t][half], s[half], scales[t], acc[t][half]);
    }
    if constexpr (kTokens > 4) __asm__ volatile("" ::: "memory");  // as in meet()
    numbers += kNumberBytes;
    at += QuantizedRows::kTileRows;
  }
  for (int t = 0; t < kTokens; ++t) store_sums(task, panel, token + t, reinterpret_cast<float*>(acc[t]));
}

// Some blocks of a panel unpacked, and their scales.
template <class How>
struct Slab {
  alignas(64) std::uint8_t numbers[kSlabBlocks * How::kBlockBytes];
  alignas(64) float scales[kSlabBlocks][kPanelRows];

  void fill(const PanelShape& shape, const std::uint8_t* panel_at, std::size_t begin, int blocks) {
    for (int i = 0; i < blocks; ++i) {
      const std::size_t block = begin + static_cast<std::size_t>(i);
      How::unpack(panel_at + shape.numbers_at + block * shape.number_bytes, numbers + i * How::kBlockBytes);
      for (int half = 0; half < kHalves; ++half)
        _mm256_store_ps(scales[i] + 8 * half, block_scale<How::kWeights>(panel_at + block * shape.scale_bytes, half));
    }
  }
};

// The slab's blocks with some tokens, onto their sums so far. `at`: the first block of the first token.
template <class How, class Tokens>
__attribute__((noinline)) void meet(Tokens tokens, const Slab<How>& slab, int blocks, const QuantizedRows& x, std::size_t at,
                                    float (*acc)[kPanelRows]) {
  constexpr int kTokens = Tokens::kCount;
  for (int t = 0; t < kTokens; ++t) _mm_prefetch(reinterpret_cast<const char*>(acc[kTokens + t]), _MM_HINT_T0);
  for (int block = 0; block < blocks; ++block, at += QuantizedRows::kTileRows) {
    __m256i sums[kTokens][kHalves];
    How::multiply_unpacked(tokens, slab.numbers + block * How::kBlockBytes, x, at, sums);
    const float* scales = x.scale(at);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      for (int half = 0; half < kHalves; ++half) {
        float* to = acc[t] + 8 * half;
        _mm256_store_ps(to, scaled(sums[t][half], _mm256_load_ps(slab.scales[block] + 8 * half), scales[tokens.place(t)],
                                   _mm256_load_ps(to)));
      }
    }
    // Sums stay where they are: g++ would keep copies of them on the stack as well, and half the speed.
    __asm__ volatile("" ::: "memory");
  }
}

template <class How>
void meet_all(const Slab<How>& slab, int blocks, const PackedTask& task, int token, int count, std::size_t block,
              float (*acc)[kPanelRows]) {
  const std::size_t skip = (task.x->blocks() - 1) * QuantizedRows::kTileRows;
  const auto run = [&](auto tokens, int t) {
    meet(tokens, slab, blocks, *task.x, task.x->at(task.first + token + t, block), acc + t);
  };
  // Six tokens keep all registers busy, whether their tile ends among them or not.
  int t = 0;
  for (; count - t >= 12; t += 6) {
    const int here = QuantizedRows::kTileRows - t % QuantizedRows::kTileRows;
    if (here == 2) {
      run(Together<6, 2>{skip}, t);
    } else if (here == 4) {
      run(Together<6, 4>{skip}, t);
    } else {
      run(Together<6>(), t);
    }
  }
  // The rest tile by tile, in parts that are not too small.
  while (t < count) {
    const int tile_end = (t / QuantizedRows::kTileRows + 1) * QuantizedRows::kTileRows, end = tile_end < count ? tile_end : count;
    const int left = end - t, part = left >= 10 || left <= 6 ? (left < 6 ? left : 6) : 4;
    with_tokens<6>(part, [&]<int kTokens>() { run(Together<kTokens>(), t); });
    t += part;
  }
}

// Fetches what a slab is unpacked from.
void prefetch(const PanelShape& shape, const std::uint8_t* panel_at, std::size_t begin, int blocks) {
  const auto* from = reinterpret_cast<const char*>(panel_at);
  const char* numbers = from + shape.numbers_at + begin * shape.number_bytes;
  for (std::size_t i = 0; i < static_cast<std::size_t>(blocks) * shape.number_bytes; i += 64)
    _mm_prefetch(numbers + i, _MM_HINT_T0);
  for (std::size_t i = 0; i < static_cast<std::size_t>(blocks) * shape.scale_bytes; i += 64)
    _mm_prefetch(from + begin * shape.scale_bytes + i, _MM_HINT_T0);
}

// Panels [begin, end) with tokens [token, token + count).
template <class How>
void run_many(const PackedTask& task, const PanelShape& shape, int begin, int end, int token, int count) {
  Slab<How> slab;
  const std::size_t sums = static_cast<std::size_t>(end - begin) * static_cast<std::size_t>(count);
  auto* acc = reinterpret_cast<float(*)[kPanelRows]>(thread_scratch(sums * sizeof(*acc)));
  __builtin_memset(acc, 0, sums * sizeof(*acc));
  const auto panel_at = [&](int panel) { return task.weight.data + static_cast<std::size_t>(panel) * shape.bytes; };
  for (std::size_t block = 0; block < shape.blocks; block += kSlabBlocks) {
    const int blocks = static_cast<int>(block + kSlabBlocks < shape.blocks ? kSlabBlocks : shape.blocks - block);
    for (int panel = begin; panel < end; ++panel) {
      if (panel + 1 < end) {
        prefetch(shape, panel_at(panel + 1), block, blocks);
      } else {
        prefetch(shape, panel_at(begin), block + kSlabBlocks, blocks);
      }
      slab.fill(shape, panel_at(panel), block, blocks);
      meet_all<How>(slab, blocks, task, token, count, block, acc + static_cast<std::ptrdiff_t>(panel - begin) * count);
    }
  }
  // Token by token: the panels' outputs lie side by side, those of tokens pages apart.
  for (int t = 0; t < count; ++t) {
    for (int panel = begin; panel < end; ++panel)
      store_sums(task, panel, token + t, acc[static_cast<std::ptrdiff_t>(panel - begin) * count + t]);
  }
}

// A panel with the tokens from `token` on, fewer than kSlabTokensMin, of one tile. Seven to ten go in two parts: with more
// than six their sums do not stay in registers.
template <class How>
void run_rest(const PackedTask& task, const PanelShape& shape, int panel, int token) {
  const std::uint8_t* at = task.weight.data + static_cast<std::size_t>(panel) * shape.bytes;
  while (token < task.tokens) {
    const int rest = task.tokens - token, part = rest <= 6 ? rest : (rest + 1) / 2;
    with_tokens<6>(part, [&]<int kTokens>() { run_few<How, kTokens>(task, shape, at, panel, token); });
    token += part;
  }
}

template <class How>
void run_panels(const PackedTask& task, int begin, int end) {
  const PanelShape shape(How::kWeights, task.weight.cols);
  const bool cached = task.tokens * task.weight.cols * How::kInputBytes <= kInputsCachedBytes;
  const int together = cached || task.tokens < kSlabTokensMin ? 1 : kPanelsTogether;
  for (int panel = begin; panel < end; panel += together) {
    const int last = panel + together < end ? panel + together : end;
    int token = 0;
    while (task.tokens - token >= kSlabTokensMin) {
      const int rest = task.tokens - token, count = rest < kSlabTokensMax ? rest : kSlabTokensMax;
      run_many<How>(task, shape, panel, last, token, count);
      token += count;
    }
    for (int each = panel; each < last; ++each) run_rest<How>(task, shape, each, token);
  }
}

// 32 inputs; returns the largest size.
CAPSTAN_INLINE float load_block(const float* x, __m256* v) {
  for (int i = 0; i < 4; ++i) v[i] = _mm256_loadu_ps(x + 8 * i);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const auto size = [&](int i) { return _mm256_andnot_ps(sign, v[i]); };
  const __m256 eight = _mm256_max_ps(_mm256_max_ps(size(0), size(1)), _mm256_max_ps(size(2), size(3)));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

}  // namespace

void packed_panels_avx2(const PackedTask& task, int begin, int end) {
  if (task.x->form() == QuantizedRows::Form::kBytes) return run_panels<Bytes>(task, begin, end);
  switch (task.weight.type) {
    case PackedType::kMxfp4:
      return run_panels<Wide<PackedType::kMxfp4>>(task, begin, end);
    case PackedType::kInt4:
      return run_panels<Wide<PackedType::kInt4>>(task, begin, end);
    case PackedType::kInt8:
      return run_panels<Wide<PackedType::kInt8>>(task, begin, end);
    case PackedType::kInt10:
      return run_panels<Wide<PackedType::kInt10>>(task, begin, end);
    case PackedType::kInt12:
      return run_panels<Wide<PackedType::kInt12>>(task, begin, end);
  }
}

void quantize_block_avx2(const float* x, std::int16_t* wide, float* scale) {
  __m256 v[4];
  const float most = load_block(x, v);
  *scale = most / kActivationMax;
  const __m256 inverse = _mm256_set1_ps(activation_inverse(most, kActivationMax));
  for (int i = 0; i < 4; i += 2) {
    // Each group of four in the order 0, 2, 1, 3.
    const auto rounded = [&](int j) {
      return _mm256_shuffle_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(v[j], inverse)), _MM_SHUFFLE(3, 1, 2, 0));
    };
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(rounded(i), rounded(i + 1)), 0xD8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide + 8 * i), both);
  }
}

void quantize_bytes_avx2(const float* x, std::int8_t* bytes, float* scale) {
  __m256 v[4];
  const float most = load_block(x, v);
  *scale = most / kByteActivationMax;
  const __m256 inverse = _mm256_set1_ps(activation_inverse(most, kByteActivationMax));
  const auto rounded = [&](int i) { return _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse)); };
  const __m256i words = _mm256_packs_epi32(rounded(0), rounded(1)), more = _mm256_packs_epi32(rounded(2), rounded(3));
  // Packing goes lane by lane: groups of four come as 0, 2, 4, 6, 1, 3, 5, 7.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes),
                      _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words, more), order));
}

}  // namespace capstan::engine

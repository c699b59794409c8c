// How it works: a block's numbers become signed 16-bit ones, for each group of four inputs two vectors of eight
// rows: inputs 0 and 2, inputs 1 and 3. VPMADDWD with the two inputs of a token broadcast gives eight rows'
// sums in 32 bits; after the block one conversion and one FMA with both scales. Few tokens take numbers as
// they are unpacked; for more, some blocks are unpacked into the first-level cache and met with all tokens.
// The order of f32 additions is that of the blocks either way. Compiled for AVX2, FMA and F16C; only called
// where the machine has them.
#include <immintrin.h>

#include "engine/kernels/packed_kernels.h"

namespace capstan::engine {
namespace {

constexpr int kGroups = kPackedBlock / 4;
constexpr int kHalves = 2;  // of a panel, eight rows each
constexpr int kStepBytes = 32 * kHalves;
constexpr int kBlockBytes = 2 * kGroups * kStepBytes;  // a block, unpacked: for each group even inputs, then odd
constexpr int kSlabBlocks = 4;                         // unpacked at a time
constexpr int kSlabTokens = 64;                        // met with them: inputs stay in the first-level cache
constexpr int kSlabTokensMin = 5;
constexpr std::size_t kTokenStride = kPackedBlock;     // in QuantizedRows, within a tile's block

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

// Two inputs of one token, for all rows.
inline __m256i two(const std::int16_t* inputs) {
  std::int32_t both;
  __builtin_memcpy(&both, inputs, 4);
  return _mm256_set1_epi32(both);
}

// A group's two inputs with kTokens tokens: `w` the numbers of both halves.
template <int kTokens>
inline __attribute__((always_inline)) void add_products(__m256i (*sums)[kHalves], __m256i w0, __m256i w1,
                                                        const std::int16_t* inputs) {
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    const __m256i x = two(inputs + static_cast<std::size_t>(t) * kTokenStride);
    sums[t][0] = _mm256_add_epi32(sums[t][0], _mm256_madd_epi16(w0, x));
    sums[t][1] = _mm256_add_epi32(sums[t][1], _mm256_madd_epi16(w1, x));
  }
}

inline __m256 scaled(__m256i sum, __m256 weight_scale, float scale, __m256 onto) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(weight_scale, _mm256_set1_ps(scale)), onto);
}

template <PackedType kType, int kTokens>
void run_few(const PackedTask& task, const PanelShape& shape, const std::uint8_t* panel_at, int panel,
             int token) {
  const std::size_t first = task.x->at(task.first + token, 0);
  const std::int16_t* inputs = task.x->wide(first);
  const float* scales = task.x->scale(first);
  const std::uint8_t* numbers = panel_at + shape.numbers_at;
  alignas(32) __m256 acc[kTokens][kHalves];
  for (auto& row : acc) row[0] = row[1] = _mm256_setzero_ps();
  for (std::size_t block = 0; block < shape.blocks; ++block) {
    for (std::size_t line = 0; line < shape.number_bytes; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(numbers) + 4'096 + line, _MM_HINT_T0);
    __m256i sums[kTokens][kHalves];
    for (auto& row : sums) row[0] = row[1] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < kGroups; ++i) {
      const int group = i / 2 + i % 2 * 4;  // 0, 4, 1, 5, …: of 4-bit numbers those of one line
      const Numbers a = numbers_of<kType>(numbers, 0, group), b = numbers_of<kType>(numbers, 1, group);
      add_products<kTokens>(sums, a.even, b.even, inputs + 4 * group);
      add_products<kTokens>(sums, a.odd, b.odd, inputs + 4 * group + 2);
    }
    const std::uint8_t* weight_scales = panel_at + block * shape.scale_bytes;
    const __m256 s[kHalves] = {block_scale<kType>(weight_scales, 0), block_scale<kType>(weight_scales, 1)};
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      for (int half = 0; half < kHalves; ++half)
        acc[t][half] = scaled(sums[t][half], s[half], scales[t], acc[t][half]);
    }
    numbers += shape.number_bytes;
    inputs += QuantizedRows::kTileRows * kPackedBlock;
    scales += QuantizedRows::kTileRows;
  }
  for (int t = 0; t < kTokens; ++t) store_panel(task, panel, token + t, reinterpret_cast<float*>(acc[t]));
}

// Blocks [begin, end) unpacked, and their scales.
struct Slab {
  alignas(64) std::uint8_t numbers[kSlabBlocks * kBlockBytes];
  alignas(64) float scales[kSlabBlocks][kPanelRows];
  alignas(64) float acc[kSlabTokens][kPanelRows];
};

template <PackedType kType>
void unpack(const PanelShape& shape, const std::uint8_t* panel_at, std::size_t begin, std::size_t end,
            Slab& slab) {
  std::uint8_t* out = slab.numbers;
  for (std::size_t block = begin; block < end; ++block, out += kBlockBytes) {
    const std::uint8_t* numbers = panel_at + shape.numbers_at + block * shape.number_bytes;
#pragma GCC unroll 8
    for (int i = 0; i < kGroups; ++i) {
      const int group = i / 2 + i % 2 * 4;
      for (int half = 0; half < kHalves; ++half) {
        const Numbers w = numbers_of<kType>(numbers, half, group);
        auto* to = reinterpret_cast<__m256i*>(out + 2 * group * kStepBytes + 32 * half);
        _mm256_store_si256(to, w.even);
        _mm256_store_si256(to + kHalves, w.odd);
      }
    }
    for (int half = 0; half < kHalves; ++half)
      _mm256_store_ps(slab.scales[block - begin] + 8 * half,
                      block_scale<kType>(panel_at + block * shape.scale_bytes, half));
  }
}

// The slab's blocks with kTokens tokens, onto their sums so far. `at`: the first block of the first token.
template <int kTokens>
void meet(Slab& slab, int blocks, const QuantizedRows& x, std::size_t at, float (*acc)[kPanelRows]) {
  for (int block = 0; block < blocks; ++block, at += QuantizedRows::kTileRows) {
    const std::uint8_t* numbers = slab.numbers + block * kBlockBytes;
    const std::int16_t* inputs = x.wide(at);
    __m256i sums[kTokens][kHalves];
    for (auto& row : sums) row[0] = row[1] = _mm256_setzero_si256();
#pragma GCC unroll 2
    for (int step = 0; step < 2 * kGroups; ++step)
      add_products<kTokens>(sums, load(numbers + step * kStepBytes), load(numbers + step * kStepBytes + 32),
                            inputs + 2 * step);
    const float* scales = x.scale(at);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      for (int half = 0; half < kHalves; ++half) {
        float* to = acc[t] + 8 * half;
        _mm256_store_ps(to, scaled(sums[t][half], _mm256_load_ps(slab.scales[block] + 8 * half), scales[t],
                                   _mm256_load_ps(to)));
      }
    }
  }
}

template <PackedType kType>
void run_many(const PackedTask& task, const PanelShape& shape, const std::uint8_t* panel_at, int panel,
              int token, int count) {
  Slab slab;
  __builtin_memset(slab.acc, 0, sizeof(slab.acc));
  for (std::size_t block = 0; block < shape.blocks; block += kSlabBlocks) {
    const std::size_t end = block + kSlabBlocks < shape.blocks ? block + kSlabBlocks : shape.blocks;
    unpack<kType>(shape, panel_at, block, end, slab);
    const int blocks = static_cast<int>(end - block);
    for (int tile = 0; tile < count; tile += QuantizedRows::kTileRows) {
      const int last = tile + QuantizedRows::kTileRows < count ? tile + QuantizedRows::kTileRows : count;
      int t = tile;
      const auto at = [&] { return task.x->at(task.first + token + t, block); };
      for (; t + 4 <= last; t += 4) meet<4>(slab, blocks, *task.x, at(), slab.acc + t);
      if (t + 2 <= last) {
        meet<2>(slab, blocks, *task.x, at(), slab.acc + t);
        t += 2;
      }
      if (t < last) meet<1>(slab, blocks, *task.x, at(), slab.acc + t);
    }
  }
  for (int t = 0; t < count; ++t) store_panel(task, panel, token + t, slab.acc[t]);
}

template <PackedType kType>
void run_panels(const PackedTask& task, int begin, int end) {
  const PanelShape shape(kType, task.weight.cols);
  for (int panel = begin; panel < end; ++panel) {
    const std::uint8_t* at = task.weight.data + static_cast<std::size_t>(panel) * shape.bytes;
    int token = 0;
    while (task.tokens - token >= kSlabTokensMin) {
      const int rest = task.tokens - token, count = rest < kSlabTokens ? rest : kSlabTokens;
      run_many<kType>(task, shape, at, panel, token, count);
      token += count;
    }
    switch (task.tokens - token) {
      case 4:
        run_few<kType, 4>(task, shape, at, panel, token);
        break;
      case 3:
        run_few<kType, 3>(task, shape, at, panel, token);
        break;
      case 2:
        run_few<kType, 2>(task, shape, at, panel, token);
        break;
      case 1:
        run_few<kType, 1>(task, shape, at, panel, token);
        break;
    }
  }
}

}  // namespace

void packed_panels_avx2(const PackedTask& task, int begin, int end) {
  switch (task.weight.type) {
    case PackedType::kMxfp4:
      return run_panels<PackedType::kMxfp4>(task, begin, end);
    case PackedType::kInt4:
      return run_panels<PackedType::kInt4>(task, begin, end);
    case PackedType::kInt8:
      return run_panels<PackedType::kInt8>(task, begin, end);
    case PackedType::kInt10:
      return run_panels<PackedType::kInt10>(task, begin, end);
    case PackedType::kInt12:
      return run_panels<PackedType::kInt12>(task, begin, end);
  }
}

void quantize_block_avx2(const float* x, std::int16_t* wide, float* scale) {
  __m256 v[4];
  for (int i = 0; i < 4; ++i) v[i] = _mm256_loadu_ps(x + 8 * i);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const auto size = [&](int i) { return _mm256_andnot_ps(sign, v[i]); };
  const __m256 eight = _mm256_max_ps(_mm256_max_ps(size(0), size(1)), _mm256_max_ps(size(2), size(3)));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  const float most = _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  *scale = most / kActivationMax;
  const __m256 inverse = _mm256_set1_ps(activation_inverse(most));
  for (int i = 0; i < 4; i += 2) {
    // Each group of four in the order 0, 2, 1, 3.
    const auto rounded = [&](int j) {
      return _mm256_shuffle_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(v[j], inverse)), _MM_SHUFFLE(3, 1, 2, 0));
    };
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(rounded(i), rounded(i + 1)), 0xD8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide + 8 * i), both);
  }
}

}  // namespace capstan::engine

// How it works: as packed_avx512.cc, with a tile of sixteen tokens at once. A panel is unpacked once for all
// of them: a block's eight vectors are a tile of weights (8 x 64 bytes) as they are; a block of sixteen
// tokens is a tile of inputs (16 x 32 bytes) as it lies in QuantizedRows. Two TDPBSUD give the 16 x 16 sums
// of the high and the low bytes; they are written out, and vectors add them with their scales while the next
// block's products run (two pairs of sums by turns). Few tokens go to packed_avx512.cc: the bits are the
// same. Inputs of 8 bits are one tile of them and one product. Compiled for AVX-512 and AMX; only called
// where the machine has them and the system lets this process use them.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kernels/packed_unpack-inl.h"

namespace capstan::engine {
namespace {

constexpr int kTile = QuantizedRows::kTileRows;
constexpr int kTokensMin = 10;  // below, vectors are faster

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t column_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
// Tiles 0 to 3 are sums, 4 the high bytes, 5 the low ones, 6 weights.
constexpr TileConfig tile_config() {
  TileConfig out;
  for (int i = 0; i < 4; ++i) out.rows[i] = kTile, out.column_bytes[i] = 64;
  for (int i = 4; i < 6; ++i) out.rows[i] = kTile, out.column_bytes[i] = kPackedBlock;
  out.rows[6] = kGroups;
  out.column_bytes[6] = 64;
  return out;
}

constexpr std::size_t kTileBytes = 64 * kGroups;  // of a block's weights, unpacked
struct alignas(64) Sums {
  std::int32_t high[kTile][kPanelRows];
  std::int32_t low[kTile][kPanelRows];
};

// Before tiles are loaded: g++ does not know that this reads memory, and could leave stores for later.
inline void memory_is_read() { __asm__ volatile("" ::: "memory"); }

// All blocks of a panel as tiles; of numbers of two parts a block's first ones, then its second ones.
template <PackedType kType>
void unpack_panel(const std::uint8_t* panel_at, const PanelShape& shape, std::uint8_t* out) {
  const std::uint8_t* numbers = panel_at + shape.numbers_at;
  const auto put = [&](const __m512i* w) {
    for (int g = 0; g < kGroups; ++g) _mm512_store_si512(out + 64 * g, w[g]);
    out += kTileBytes;
  };
  for (std::size_t block = 0; block < shape.blocks; ++block, numbers += shape.number_bytes) {
    __m512i w[kGroups];
    unpack<kType>(numbers, w);
    put(w);
    if constexpr (low_bits(kType) > 0) {
      unpack_low<kType>(numbers, w);
      put(w);
    }
  }
}

// The sums of one block; the tiles differ for even and odd blocks.
template <bool kOdd>
inline void multiply(const std::uint8_t* weights, Sums& sums) {
  _tile_loadd(6, weights, 64);
  if constexpr (kOdd) {
    _tile_zero(2);
    _tile_zero(3);
    _tile_dpbsud(2, 4, 6);
    _tile_dpbsud(3, 5, 6);
    _tile_stored(2, sums.high, 64);
    _tile_stored(3, sums.low, 64);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 5, 6);
    _tile_stored(0, sums.high, 64);
    _tile_stored(1, sums.low, 64);
  }
}

// The same with inputs of 8 bits: sums in `high` alone.
template <bool kOdd>
inline void multiply_bytes(const std::uint8_t* weights, Sums& sums) {
  _tile_loadd(6, weights, 64);
  if constexpr (kOdd) {
    _tile_zero(2);
    _tile_dpbsud(2, 4, 6);
    _tile_stored(2, sums.high, 64);
  } else {
    _tile_zero(0);
    _tile_dpbsud(0, 4, 6);
    _tile_stored(0, sums.high, 64);
  }
}

inline __m512i value_of(const Sums& sums, int token) {
  const __m512i tops = _mm512_load_si512(sums.high[token]), rests = _mm512_load_si512(sums.low[token]);
  return _mm512_add_epi32(_mm512_slli_epi32(tops, 8), rests);
}

template <PackedType kType, bool kBytes>
struct Walk {
  static constexpr int kLow = low_bits(kType);
  static constexpr std::size_t kStep = kLow > 0 ? 2 * kTileBytes : kTileBytes;

  const std::uint8_t* panel_at;
  const std::uint8_t* weights;  // the panel, unpacked
  const PanelShape& shape;
  const QuantizedRows& x;
  std::size_t first;
  Sums (&sums)[2];
  Sums (&rests)[2];

  template <bool kOdd>
  void products(std::size_t block) const {
    const std::size_t at = first + block * kTile;
    _tile_loadd(4, x.high(at), kPackedBlock);
    if constexpr (kBytes) return multiply_bytes<kOdd>(weights + block * kStep, sums[kOdd]);
    _tile_loadd(5, x.low(at), kPackedBlock);
    multiply<kOdd>(weights + block * kStep, sums[kOdd]);
    if constexpr (kLow > 0) multiply<kOdd>(weights + block * kStep + kTileBytes, rests[kOdd]);
  }
  template <bool kOdd>
  inline __attribute__((always_inline)) void add(std::size_t block, __m512* acc) const {
    const std::size_t at = first + block * kTile;
    const __m512 weight_scale =
        _mm512_mul_ps(block_scale<kType>(panel_at + block * shape.scale_bytes), _mm512_set1_ps(shape.factor));
    const float* scales = x.scale(at);
    const std::int32_t* corrections = kBytes ? x.pair_correction(at) : x.correction(kOffset<kType>, at);
#pragma GCC unroll 16
    for (int t = 0; t < kTile; ++t) {
      const std::int32_t correction = kBytes ? whole_correction(corrections[t]) : corrections[t];
      const __m512i value = kBytes ? _mm512_load_si512(sums[kOdd].high[t]) : value_of(sums[kOdd], t);
      __m512i sum = _mm512_add_epi32(value, _mm512_set1_epi32(correction));
      if constexpr (kLow > 0)
        sum = _mm512_add_epi32(_mm512_slli_epi32(sum, kLow), value_of(rests[kOdd], t));
      acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum),
                               _mm512_mul_ps(weight_scale, _mm512_set1_ps(scales[t])), acc[t]);
    }
  }
};

template <PackedType kType, bool kBytes>
void run_tile(const PackedTask& task, const PanelShape& shape, const std::uint8_t* at,
              const std::uint8_t* weights, int panel, int token) {
  Sums sums[2], rests[2];
  const Walk<kType, kBytes> walk{at, weights, shape, *task.x, task.x->at(task.first + token, 0), sums, rests};
  __m512 acc[kTile];
  for (auto& sum : acc) sum = _mm512_setzero_ps();
  walk.template products<false>(0);
  std::size_t block = 1;
  for (; block + 1 < shape.blocks; block += 2) {
    walk.template products<true>(block);
    walk.template add<false>(block - 1, acc);
    walk.template products<false>(block + 1);
    walk.template add<true>(block, acc);
  }
  if (block < shape.blocks) {
    walk.template products<true>(block);
    walk.template add<false>(block - 1, acc);
    walk.template add<true>(block, acc);
  } else {
    walk.template add<false>(block - 1, acc);
  }
  const int count = task.tokens - token < kTile ? task.tokens - token : kTile;
  for (int t = 0; t < count; ++t) {
    alignas(64) float out[kPanelRows];
    _mm512_store_ps(out, acc[t]);
    store_panel(task, panel, token + t, out);
  }
}

template <PackedType kType, bool kBytes = false>
void run_panels(const PackedTask& task, int begin, int end) {
  const PanelShape shape(kType, task.weight.cols);
  const int whole = task.tokens % kTile >= kTokensMin ? task.tokens : task.tokens / kTile * kTile;
  const std::size_t unpacked = shape.blocks * kTileBytes * (low_bits(kType) > 0 ? 2 : 1);
  std::uint8_t* weights = thread_scratch(unpacked);
  for (int panel = begin; panel < end; ++panel) {
    const std::uint8_t* at = task.weight.data + static_cast<std::size_t>(panel) * shape.bytes;
    unpack_panel<kType>(at, shape, weights);
    memory_is_read();
    for (int token = 0; token < whole; token += kTile)
      run_tile<kType, kBytes>(task, shape, at, weights, panel, token);
  }
  if (whole == task.tokens) return;
  PackedTask rest = task;
  rest.first += whole;
  rest.tokens -= whole;
  rest.out += static_cast<std::size_t>(whole) * task.out_stride;
  packed_panels_avx512(rest, begin, end);
}

}  // namespace

bool amx_is_granted() {
  std::uint32_t a = 7, b = 0, c = 0, d = 0;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  constexpr std::uint32_t kTileBit = 1u << 24, kInt8Bit = 1u << 25;
  if ((d & kTileBit) == 0 || (d & kInt8Bit) == 0) return false;
  // Linux asks for it: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
  return ::syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

void packed_panels_amx(const PackedTask& task, int begin, int end) {
  if (task.tokens < kTokensMin) return packed_panels_avx512(task, begin, end);
  static constexpr TileConfig kConfig = tile_config();  // in memory: g++ does not know that all of it is read
  _tile_loadconfig(&kConfig);
  switch (task.weight.type) {
    case PackedType::kMxfp4:
      if (task.x->form() == QuantizedRows::Form::kBytes) {
        run_panels<PackedType::kMxfp4, true>(task, begin, end);
      } else {
        run_panels<PackedType::kMxfp4>(task, begin, end);
      }
      break;
    case PackedType::kInt4:
      run_panels<PackedType::kInt4>(task, begin, end);
      break;
    case PackedType::kInt8:
      run_panels<PackedType::kInt8>(task, begin, end);
      break;
    case PackedType::kInt10:
      run_panels<PackedType::kInt10>(task, begin, end);
      break;
    case PackedType::kInt12:
      run_panels<PackedType::kInt12>(task, begin, end);
      break;
  }
  _tile_release();
}

}  // namespace capstan::engine

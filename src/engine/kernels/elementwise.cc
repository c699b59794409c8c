// Straight loops over vectors; a rest that is no whole vector goes through the scalar formula, which is the
// same for every element, so that a result never depends on where a buffer happens to end.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/elementwise.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include "engine/kernels/elementwise.h"

#include <algorithm>
#include <cmath>

#include "base/assert.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace capstan::engine {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr float kSwigluAlpha = 1.702f;  // gpt-oss; not in config.json

void RmsNorm(const float* x, const float* weight, float epsilon, int count, float* out) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto squares = hn::Zero(d);
  int i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    squares = hn::MulAdd(v, v, squares);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, squares));
  for (; i < count; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(count) + epsilon);
  for (i = 0; i + lanes <= count; i += lanes) {
    const auto v = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale));
    hn::StoreU(hn::Mul(v, hn::LoadU(d, weight + i)), d, out + i);
  }
  for (; i < count; ++i) out[i] = x[i] * scale * weight[i];
}

void RotateHalves(float* x, const float* cosine, const float* sine, int half) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int i = 0;
  for (; i + lanes <= half; i += lanes) {
    const auto a = hn::LoadU(d, x + i);
    const auto b = hn::LoadU(d, x + half + i);
    const auto c = hn::LoadU(d, cosine + i);
    const auto s = hn::LoadU(d, sine + i);
    hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, x + i);
    hn::StoreU(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d, x + half + i);
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    x[i] = a * cosine[i] - b * sine[i];
    x[half + i] = b * cosine[i] + a * sine[i];
  }
}

void ClampedSwiglu(const float* u, float limit, int count, float* out) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto high = hn::Set(d, limit);
  const auto low = hn::Set(d, -limit);
  const auto one = hn::Set(d, 1.0f);
  int i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::Vec<decltype(d)> gate, linear;
    hn::LoadInterleaved2(d, u + 2 * i, gate, linear);
    gate = hn::Min(gate, high);
    linear = hn::Max(low, hn::Min(linear, high));
    const auto decay = hn::Exp(d, hn::Mul(gate, hn::Set(d, -kSwigluAlpha)));
    const auto gated = hn::Div(gate, hn::Add(one, decay));
    hn::StoreU(hn::Mul(gated, hn::Add(linear, one)), d, out + i);
  }
  for (; i < count; ++i) {
    const float gate = std::min(u[2 * i], limit);
    const float linear = std::clamp(u[2 * i + 1], -limit, limit);
    out[i] = gate / (1.0f + std::exp(-kSwigluAlpha * gate)) * (linear + 1.0f);
  }
}

void AddScaled(const float* x, float scale, int count, float* out) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::Add(hn::LoadU(d, out + i), hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale))), d, out + i);
  }
  for (; i < count; ++i) out[i] += scale * x[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace capstan::engine
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace capstan::engine {

HWY_EXPORT(RmsNorm);
HWY_EXPORT(RotateHalves);
HWY_EXPORT(ClampedSwiglu);
HWY_EXPORT(AddScaled);

void rms_norm(const float* x, const float* weight, float epsilon, int count, float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNorm)(x, weight, epsilon, count, out);
}
void rotate_halves(float* x, const float* cosine, const float* sine, int half) {
  HWY_DYNAMIC_DISPATCH(RotateHalves)(x, cosine, sine, half);
}
void clamped_swiglu(const float* u, float limit, int count, float* out) {
  HWY_DYNAMIC_DISPATCH(ClampedSwiglu)(u, limit, count, out);
}
void add_scaled(const float* x, float scale, int count, float* out) {
  HWY_DYNAMIC_DISPATCH(AddScaled)(x, scale, count, out);
}

void rms_norm_scalar(const float* x, const float* weight, float epsilon, int count, float* out) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double scale = 1 / std::sqrt(sum / count + epsilon);
  for (int i = 0; i < count; ++i) out[i] = static_cast<float>(x[i] * scale * weight[i]);
}

void rotate_halves_scalar(float* x, const float* cosine, const float* sine, int half) {
  for (int i = 0; i < half; ++i) {
    const double a = x[i], b = x[half + i];
    x[i] = static_cast<float>(a * cosine[i] - b * sine[i]);
    x[half + i] = static_cast<float>(b * cosine[i] + a * sine[i]);
  }
}

void clamped_swiglu_scalar(const float* u, float limit, int count, float* out) {
  for (int i = 0; i < count; ++i) {
    const double gate = std::min(u[2 * i], limit);
    const double linear = std::clamp(u[2 * i + 1], -limit, limit);
    out[i] = static_cast<float>(gate / (1 + std::exp(-1.702 * gate)) * (linear + 1));
  }
}

void route_top_k(const float* logits, int count, int k, int* experts, float* weights) {
  CAPSTAN_ASSERT(k > 0 && k <= count);
  int chosen = 0;  // kept sorted by logit, best first; a tie leaves the earlier index in front
  for (int i = 0; i < count; ++i) {
    int at = chosen;
    while (at > 0 && logits[experts[at - 1]] < logits[i]) --at;
    if (at == k) continue;
    if (chosen < k) ++chosen;
    for (int j = chosen - 1; j > at; --j) experts[j] = experts[j - 1];
    experts[at] = i;
  }
  const float max = logits[experts[0]];
  std::sort(experts, experts + k);
  float sum = 0;
  for (int j = 0; j < k; ++j) sum += weights[j] = std::exp(logits[experts[j]] - max);
  for (int j = 0; j < k; ++j) weights[j] /= sum;
}

}  // namespace capstan::engine
#endif  // HWY_ONCE

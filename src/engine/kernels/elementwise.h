// The small kernels between the matrix products: norm, rotation, activation, routing. All f32, one vector a
// call.
//
// Each has a twin (…_scalar) that computes in double, one number after the other.
// Threads: pure functions.  Cost: linear in the length.
#pragma once

namespace capstan::engine {

// out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i]; out may be x.
void rms_norm(const float* x, const float* weight, float epsilon, int count, float* out);
void rms_norm_scalar(const float* x, const float* weight, float epsilon, int count, float* out);

// Half-split ("NeoX") pairs (x[i], x[i + half]), turned in place; cosine and sine are (half).
void rotate_halves(float* x, const float* cosine, const float* sine, int half);
void rotate_halves_scalar(float* x, const float* cosine, const float* sine, int half);

// gate = min(u[2i], limit); linear = clamp(u[2i+1], -limit, limit);
// out[i] = gate * sigmoid(1.702 gate) * (linear + 1). u is (2 count), interleaved.
void clamped_swiglu(const float* u, float limit, int count, float* out);
void clamped_swiglu_scalar(const float* u, float limit, int count, float* out);

// out[i] += scale * x[i].
void add_scaled(const float* x, float scale, int count, float* out);

// The k largest of logits (count), ties to the lower index, ordered by index; weights = softmax over those k.
void route_top_k(const float* logits, int count, int k, int* experts, float* weights);

}  // namespace capstan::engine

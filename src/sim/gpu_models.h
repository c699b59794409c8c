// GPU kinds for the performance models: peaks and bandwidths as their makers and clouds publish them.
//
// Units: FLOP/s of bf16 matrix products without sparsity, bytes per second of one GPU in one direction.
// Sources: vendors' data sheets; network: p3dn, p4d, p5, p6-b200, u-p6e-gb200x72 by their published EFA rates
// divided by their GPUs. GB300's EFA rate on AWS is not published: GB200's is used.
#pragma once

#include <string_view>

namespace capstan::sim {

struct GpuModel {
  std::string_view name;
  double flops = 0;
  double memory_bytes = 0;
  double memory_rate = 0;
  double nvlink_rate = 0;
  double network_rate = 0;
};

inline constexpr GpuModel kGpuModels[] = {
    {"v100", 125e12, 32e9, 0.9e12, 150e9, 1.56e9}, {"a100", 312e12, 80e9, 2.0e12, 300e9, 6.25e9},
    {"h100", 989e12, 80e9, 3.35e12, 450e9, 50e9},  {"h200", 989e12, 141e9, 4.8e12, 450e9, 50e9},
    {"b200", 2250e12, 180e9, 8.0e12, 900e9, 50e9}, {"gb200", 2500e12, 186e9, 8.0e12, 900e9, 50e9},
    {"gb300", 2500e12, 279e9, 8.0e12, 900e9, 50e9}};

// The entry of that name; of an unknown kind, H100's.
constexpr const GpuModel& gpu_model(std::string_view name) {
  for (const GpuModel& one : kGpuModels) {
    if (one.name == name) return one;
  }
  return kGpuModels[2];
}
constexpr bool gpu_model_known(std::string_view name) {
  for (const GpuModel& one : kGpuModels) {
    if (one.name == name) return true;
  }
  return false;
}

}  // namespace capstan::sim

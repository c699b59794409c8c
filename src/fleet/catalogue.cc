// How it works: two tables. EC2's figures are those of Karpenter's AWS provider of August 2026 and of AWS's own pages;
// accelerators' memory is from NVIDIA's and the Neuron documentation's tables. "from memory": not found in print.
#include "fleet/catalogue.h"

#include <algorithm>

namespace capstan::fleet {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;
constexpr std::int64_t kGB = 1'000'000'000;

HostClass row(std::string name, std::int64_t vcpus, std::int64_t memory_gib, std::string gpu_model = "",
              std::int64_t gpus = 0, std::int64_t gpu_memory_gb = 0, bool fractional = false) {
  HostClass out;
  out.name = std::move(name);
  out.capacity = {vcpus * 1000, memory_gib * kGiB, gpus, 0};
  out.gpu_model = std::move(gpu_model);
  out.gpu_memory_bytes = gpu_memory_gb * kGB;
  out.fractional = fractional;
  return out;
}

std::vector<HostClass> make_host_classes() {
  constexpr bool kShared = true;  // GPUs that may be given in shares
  return {
      // GPUs. GB200 and GB300 trays: no MIG or vGPU there, so no shares.
      row("p6e-gb200.36xlarge", 144, 960, "gb200", 4, 185),  // vCPUs and memory from memory
      row("p6e-gb300.36xlarge", 144, 960, "gb300", 4, 288),  // all but the accelerator from memory
      row("p6-b300.48xlarge", 192, 4096, "b300", 8, 288, kShared),
      row("p6-b200.48xlarge", 192, 2048, "b200", 8, 180, kShared),
      row("p5en.48xlarge", 192, 2048, "h200", 8, 141, kShared),
      row("p5e.48xlarge", 192, 2048, "h200", 8, 141, kShared),
      row("p5.48xlarge", 192, 2048, "h100", 8, 80, kShared),
      row("p5.4xlarge", 16, 256, "h100", 1, 80, kShared),
      row("p4d.24xlarge", 96, 1152, "a100", 8, 40, kShared),
      row("g7e.48xlarge", 192, 2048, "rtxpro6000", 8, 96, kShared),
      // Neuron.
      row("trn1.32xlarge", 128, 512, "trainium1", 16, 32),
      row("trn2.48xlarge", 192, 2048, "trainium2", 16, 96),
      row("trn3-gen1", 192, 2048, "trainium3", 16, 144),  // host's figures from memory
      row("trn3-gen2", 192, 2048, "trainium3", 4, 144),   // 36 servers of 4; host's figures from memory
      // HGX boards in hosts of one's own: 8 GPUs, one NVLink domain.
      row("hgx-h100", 192, 2048, "h100", 8, 80, kShared),
      row("hgx-h200", 192, 2048, "h200", 8, 141, kShared),
      row("hgx-b200", 192, 2048, "b200", 8, 180, kShared),
      row("hgx-b300", 192, 4096, "b300", 8, 288, kShared),
      // CPUs.
      row("m8g.48xlarge", 192, 768),
      row("c8g.48xlarge", 192, 384),
      row("r8g.48xlarge", 192, 1536),
      row("m9g.48xlarge", 192, 768),
      row("m8a.48xlarge", 192, 768),
      row("c8a.48xlarge", 192, 384),
      row("m7i.48xlarge", 192, 768),
      row("m8i.96xlarge", 384, 1536),
      row("c8i.96xlarge", 384, 768),
      row("r8i.96xlarge", 384, 3072),
  };
}

template <class Rows>
auto find_in(const Rows& rows, std::string_view name) {
  const auto at = std::find_if(rows.begin(), rows.end(), [&](const auto& one) { return one.name == name; });
  return at == rows.end() ? nullptr : &*at;
}

}  // namespace

const std::vector<HostClass>& host_classes() {
  static const std::vector<HostClass> kRows = make_host_classes();
  return kRows;
}

const std::vector<UltraServerKind>& ultraserver_kinds() {
  // Power: an NVL72 rack of GB200 draws 120 to 132 kW, of GB300 132 to 140 kW.
  static const std::vector<UltraServerKind> kRows = {
      {"u-p6e-gb200x72", "p6e-gb200.36xlarge", 18, 126'000},
      {"u-p6e-gb200x36", "p6e-gb200.36xlarge", 9, 63'000},
      {"u-p6e-gb300x72", "p6e-gb300.36xlarge", 18, 136'000},
      {"u-trn2x64", "trn2.48xlarge", 4, 0},
      {"u-trn3-gen1x64", "trn3-gen1", 4, 0},
      {"u-trn3-gen2x144", "trn3-gen2", 36, 0},
  };
  return kRows;
}

const HostClass* find_host_class(std::string_view name) { return find_in(host_classes(), name); }
const UltraServerKind* find_ultraserver(std::string_view name) { return find_in(ultraserver_kinds(), name); }

}  // namespace capstan::fleet

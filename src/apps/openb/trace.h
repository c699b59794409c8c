// The OpenB trace: the nodes and pods of a shared GPU cluster as CSV, plain or compressed with zstd.
//
//   CAPSTAN_TRY(OpenbTrace trace, read_openb(nodes_path, pods_path));
//
// Source: the openb_node_list_*.csv and openb_pod_list_*.csv of the kubernetes-scheduler-simulator of Weng et
// al., USENIX ATC'23 (Apache-2.0). Columns are found by their names; others are passed over:
//   nodes: sn, cpu_milli, memory_mib, gpu (count), model
//   pods:  name, cpu_milli, memory_mib, num_gpu, gpu_milli (of each GPU, 1000 if there are several),
//          gpu_spec (models that will do, as "T4|V100M16"; empty: any)
// Failure: kInvalid with file and line for a bad value or a missing column, kNotFound and so on for the file.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "scheduler/single_host_room.h"

namespace capstan::apps {

inline constexpr std::size_t kOpenbRowsMax = 1'000'000;
inline constexpr std::uint64_t kOpenbBytesMax = 256u << 20;  // of a file, decompressed

struct OpenbNode {
  std::string name;
  scheduler::Capacity capacity;
  std::string gpu_model;
};

struct OpenbTrace {
  std::vector<OpenbNode> nodes;
  std::vector<scheduler::HostRequest> pods;  // in the order of the file
};

// The thousandths of GPUs that a request or a node comes to.
std::int64_t gpu_milli_of(const scheduler::Capacity& capacity);

// `name` is for messages.
Result<std::vector<OpenbNode>> parse_openb_nodes(std::string_view name, std::string_view csv);
Result<std::vector<scheduler::HostRequest>> parse_openb_pods(std::string_view name, std::string_view csv);

Result<OpenbTrace> read_openb(const std::filesystem::path& nodes, const std::filesystem::path& pods);

}  // namespace capstan::apps

// What one rank asks of one host, and the room that a host has: values.
//
//   HostRequest share{.each = {.milli_cpus = 4'000, .gpu_milli = 250}, .gpu_models = {"a10", "t4"}};
//   HostRoom room = room_of(inventory, host);
//   if (allows(share, host_class) && fits(share, room)) …
//
// Hosts of equal room are interchangeable for placement, so scores are worked out once for each room, not for
// each host.  Units: thousandths of CPUs and GPUs, bytes.  Cost: room_of O(GPUs of the host), a few tens of
// nanoseconds. Threads: pure.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/inventory.h"

namespace capstan::scheduler {

// One rank on one host: whole GPUs, or a share of one GPU (1 to 999 thousandths), or none; never both.
struct HostRequest {
  Capacity each;
  std::vector<std::string> gpu_models;  // any of these, ascending and each once; empty: any
  std::string host_class;               // empty: any

  friend bool operator==(const HostRequest&, const HostRequest&) = default;
  friend std::strong_ordering operator<=>(const HostRequest& a, const HostRequest& b);
};

// May a host of this class take such a rank when it is idle of everything else? By kind alone: model, class,
// whether its GPUs may be shared and in which slices.
bool allows(const HostRequest& request, const fleet::HostClass& host_class);

// What is free on a host. Equal values rank equally.
struct HostRoom {
  fleet::ClassId host_class{};
  std::uint32_t gpus = 0;  // that have not failed
  std::int64_t milli_cpus = 0;
  std::int64_t memory_bytes = 0;
  std::array<std::uint16_t, fleet::kGpusPerHostMax> gpu_milli{};  // free of each, ascending; the rest 0
  friend bool operator==(const HostRoom&, const HostRoom&) = default;
};
HostRoom room_of(const Inventory& inventory, HostId host);
std::uint64_t hash_of(const HostRoom& room);
std::int64_t free_gpu_milli(const HostRoom& room);

// Is there room, given that the class allows it?
bool fits(const HostRequest& request, const HostRoom& room);
// The room that is left; a share goes to the `gpu`-th of room.gpu_milli, whole GPUs to wholly free ones. The
// result's GPUs are in no order: it is to be measured, not compared.
HostRoom room_after(const HostRequest& request, const HostRoom& room, std::uint32_t gpu);

}  // namespace capstan::scheduler

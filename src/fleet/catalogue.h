// Catalogue: the kinds of hosts and UltraServers that a fleet file may name without describing them.
//
//   if (const HostClass* tray = find_host_class("p6e-gb200.36xlarge")) …       // 4 GPUs, 144 vCPUs, 960 GiB
//   if (const UltraServerKind* kind = find_ultraserver("u-p6e-gb200x72")) …    // 18 of them
//
// Sources are in catalogue.cc, row by row; what is not published is marked there.  Threads: constants, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fleet/host.h"

namespace capstan::fleet {

// An NVLink domain (or what a maker calls so) of equal trays.
struct UltraServerKind {
  std::string name;
  std::string host_class;
  std::int64_t trays = 0;
  std::int64_t watts = 0;  // of all of it, under load; 0: not known
};

const std::vector<HostClass>& host_classes();
const std::vector<UltraServerKind>& ultraserver_kinds();
const HostClass* find_host_class(std::string_view name);          // nullptr: none of that name
const UltraServerKind* find_ultraserver(std::string_view name);  // nullptr: none of that name

}  // namespace capstan::fleet

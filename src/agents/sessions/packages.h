// The packages that a template's sandboxes have beside their root's, as its file lists them.
//
//   CAPSTAN_TRY(PackageList list, packages_of(json));   // {"python": ["numpy==1.26.4"], "wheels": "/srv/wheels"}
//
// `python` holds requirements as pip reads them. They come from an index (PyPI unless named), from a directory of wheels of
// this host, or from both; `allow` lists the hosts that are reachable meanwhile, the index's own unless named. Installed by
// pip.h, kept by package_layers.h.
//
// Threads: values.  Failure: kInvalid, with what would be right.
#pragma once

#include <string>
#include <vector>

#include "agents/egress/host_rules.h"
#include "base/json.h"

namespace capstan::agents {

inline constexpr std::size_t kPackagesMax = 200;
inline constexpr std::string_view kPackagesPath = "/mnt/packages";  // where sandboxes see them

struct PackageList {
  std::vector<std::string> python = {};
  std::string index = {};   // a package index's URL; empty: none
  std::string wheels = {};  // a directory of this host; empty: none
  HostRules allow = {};

  bool empty() const { return python.empty(); }
};

Result<PackageList> packages_of(const Json& json);

}  // namespace capstan::agents

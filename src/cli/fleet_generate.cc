// fleet generate: a fleet file from a few numbers.
//
// How: clusters of equal size; those that take one more make a group of their own. In each, whole blocks are
// one line with a count, and what is left makes a last, smaller block.
#include <cstdio>

#include "cli/scheduling_commands.h"

namespace capstan::cli {
namespace {

// As many '#' as the largest number has digits.
std::string digits(std::int64_t count) {
  return std::string(std::to_string(std::max<std::int64_t>(count, 1) - 1).size(), '#');
}

// The blocks of `count` things, `per_block` each; `content` is what a block holds, with {} for how many.
std::string blocks(const std::string& prefix, std::int64_t count, std::int64_t per_block,
                   const std::string& content) {
  std::string out;
  const auto line = [&](const std::string& name, std::int64_t of, std::int64_t each) {
    out += fmt::format("          - {{name: {}{}, {}, count: {}}}]}}\n", name,
                       of > 1 ? fmt::format(", count: {}", of) : "", content, each);
  };
  const std::int64_t whole = count / per_block;
  if (whole > 0) line(prefix + digits(whole), whole, per_block);
  if (count % per_block > 0) line(prefix + "rest", 1, count % per_block);
  return out;
}

}  // namespace

std::string fleet_yaml(const FleetGenerateOptions& options) {
  std::string out =
      fmt::format("# {} UltraServers and {} hosts in {} {}.\n", options.ultraservers, options.hosts,
                  options.clusters, options.clusters == 1 ? "cluster" : "clusters");
  out += fmt::format("fleet: {}\nregions:\n  - name: {}\n    clusters:\n", options.name, options.region);
  const auto cluster = [&](std::int64_t count, std::int64_t ultraservers, std::int64_t hosts) {
    if (count == 0 || ultraservers + hosts == 0) return;
    out += fmt::format("      - name: c{}\n        count: {}\n        blocks:\n", digits(options.clusters),
                       count);
    out += blocks("b", ultraservers, options.per_block,
                  fmt::format("ultraservers: [{{kind: {}, spares: {}", options.kind, options.spares));
    out +=
        blocks("p", hosts, options.hosts_per_block, fmt::format("hosts: [{{class: {}", options.host_class));
  };
  // Clusters are cut where the remainder of either ends: at most three groups of equal clusters.
  const std::int64_t more_ultraservers = options.ultraservers % options.clusters;
  const std::int64_t more_hosts = options.hosts % options.clusters;
  std::int64_t done = 0;
  for (const std::int64_t end :
       {std::min(more_ultraservers, more_hosts), std::max(more_ultraservers, more_hosts), options.clusters}) {
    cluster(end - done, options.ultraservers / options.clusters + (done < more_ultraservers ? 1 : 0),
            options.hosts / options.clusters + (done < more_hosts ? 1 : 0));
    done = end;
  }
  return out;
}

int fleet_generate(const FleetGenerateOptions& options) {
  if (options.ultraservers + options.hosts == 0)
    return report(Error{Code::kInvalid, "a fleet needs --ultraservers or --hosts", {}});
  fmt::print("{}", fleet_yaml(options));
  return kOk;
}

}  // namespace capstan::cli

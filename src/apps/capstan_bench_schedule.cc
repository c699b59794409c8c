// capstan-bench-schedule: how fast does the controller decide, how much memory does it need, and how soon is
// it back, on fleets of half a million GPUs?
//
// How it works: each section (bench/section.h) runs in processes of its own, one after another. Progress goes
// to stderr; the last line of stdout is one JSON object with the figures, and under "conditions" how they
// came about. Exit codes: 0 done, 1 a section failed, 2 wrong command line.
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <thread>

#include "apps/bench/latencies.h"
#include "apps/bench/section.h"
#include "base/build_id.h"
#include "base/text.h"

namespace capstan::apps::bench {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

struct Named {
  std::string_view name;
  Section run;
};
constexpr Named kSections[] = {{"half_million", half_million},
                               {"gangs", gangs},
                               {"scaling", scaling},
                               {"tasks", tasks},
                               {"queue", queue}};

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

Json machine() {
  utsname name{};
  ::uname(&name);
  const auto pages = static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES));
  const auto page_bytes = static_cast<std::int64_t>(::sysconf(_SC_PAGESIZE));
  return Json::object({{"cpu", cpu_model()},
                       {"cores", std::thread::hardware_concurrency()},
                       {"memory_gib", pages / ((1 << 30) / page_bytes)},
                       {"kernel", std::string(name.release)}});
}

// Figures to the top, conditions and fingerprints below; half a million keeps its own object.
void add(Json& out, std::string_view section, Json result) {
  Json conditions = Json::object();
  for (const std::string_view key : {"conditions", "fingerprint", "peak_rss_mib"}) {
    if (Json* member = result.find(key)) {
      conditions[key] = std::move(*member);
      result.erase(key);
    }
  }
  if (section == "half_million") {
    out[section] = std::move(result);
  } else {
    for (auto& [key, value] : result.members()) out[key] = std::move(value);
  }
  out["conditions"][section] = std::move(conditions);
}

Result<Json> measure(const Options& options, const std::vector<std::string>& only) {
  Json out = Json::object();
  Json conditions = Json::object({{"scale", options.scale}, {"machine", machine()}, {"build", build_id()}});
  out["conditions"] = std::move(conditions);
  const Stopwatch watch;
  for (const Named& section : kSections) {
    if (!only.empty() && std::find(only.begin(), only.end(), section.name) == only.end()) continue;
    const Stopwatch own;
    auto result = section.run(options);
    if (!result) return std::unexpected(std::move(result).error().with_context(std::string(section.name)));
    add(out, section.name, *std::move(result));
    out["conditions"][section.name]["section_s"] = rounded(own.s());
    progress("{} took {:.1f} s", section.name, own.s());
  }
  out["conditions"]["total_s"] = rounded(watch.s());
  return out;
}

}  // namespace

int run(int argc, char** argv) {
  Options options;
  options.fleets = "examples/fleets";
  std::string only, directory;
  CLI::App app(
      "Measures the scheduler through the real controller; the last line is one JSON object.\n"
      "Example: capstan-bench-schedule --only gangs,queue --scale 0.01");
  app.add_option("--only", only, "sections, with commas: half_million, gangs, scaling, tasks, queue");
  app.add_option("--scale", options.scale, "of fleets and counts; 1 is what is published")
      ->check(CLI::Range(0.0001, 1.0))
      ->capture_default_str();
  app.add_option("--aging", options.starts_and_ends,
                 "starts and ends that age the fleet, instead of the recipe's");
  app.add_option("--fleets", options.fleets, "folder of the fleet files and the recipe")
      ->capture_default_str();
  app.add_option("--directory", directory,
                 "where journals are written; a folder of its own is made and removed");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  std::vector<std::string> names;
  for (const std::string_view name : split(only, ',')) {
    if (!name.empty()) names.emplace_back(name);
  }
  for (const std::string& name : names) {
    const bool known = std::any_of(std::begin(kSections), std::end(kSections),
                                   [&](const Named& section) { return section.name == name; });
    if (known) continue;
    fmt::print(stderr, "capstan-bench-schedule: there is no section '{}'\n", name);
    return kExitUsage;
  }
  const std::filesystem::path parent =
      directory.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(directory);
  options.directory = parent / fmt::format("capstan-bench-schedule.{}", ::getpid());
  std::filesystem::create_directories(options.directory);
  const Result<Json> result = measure(options, names);
  std::filesystem::remove_all(options.directory);
  if (!result) {
    fmt::print(stderr, "capstan-bench-schedule: {}\n", result.error().message);
    return kExitFailed;
  }
  fmt::print("{}\n", result->dump());
  return 0;
}

}  // namespace capstan::apps::bench

int main(int argc, char** argv) { return capstan::apps::bench::run(argc, argv); }

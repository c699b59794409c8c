// How it works: a child says its result through a pipe, as one JSON line: {"ok": …} or {"error": …}.
#include "apps/bench/section.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "apps/bench/latencies.h"
#include "base/file.h"
#include "base/text.h"
#include "workload/fleet_yaml.h"

namespace capstan::apps::bench {
namespace {

// VmHWM of this process, MiB.
double peak_rss_mib() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (!line.starts_with("VmHWM:")) continue;
    std::int64_t kib = 0;
    for (const char c : line) {
      if (c >= '0' && c <= '9') kib = kib * 10 + (c - '0');
    }
    return rounded(static_cast<double>(kib) / 1'024);
  }
  return 0;
}

std::string read_all(int fd) {
  std::string out;
  char buffer[65'536];
  for (ssize_t got = 0; (got = ::read(fd, buffer, sizeof buffer)) > 0;)
    out.append(buffer, static_cast<std::size_t>(got));
  return out;
}

[[noreturn]] void be_child(int fd, const std::function<Result<Json>()>& run) {
  Result<Json> result = run();
  Json said = Json::object();
  if (result) {
    if (result->is_object()) (*result)["peak_rss_mib"] = peak_rss_mib();
    said["ok"] = *std::move(result);
  } else {
    said["error"] = result.error().message;
  }
  std::string text = said.dump();
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t put = ::write(fd, rest.data(), rest.size());
    if (put <= 0) ::_exit(1);
    rest.remove_prefix(static_cast<std::size_t>(put));
  }
  ::_exit(0);  // as after a crash: nothing is put in order
}

}  // namespace

std::int64_t Options::scaled(std::int64_t count, std::int64_t least) const {
  return std::max(least, static_cast<std::int64_t>(std::llround(static_cast<double>(count) * scale)));
}

Result<Json> in_own_process(const std::function<Result<Json>()>& run) {
  int ends[2];
  if (::pipe(ends) != 0) return fail(Code::kIo, "no pipe");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) return fail(Code::kIo, "no process");
  if (child == 0) {
    ::close(ends[0]);
    be_child(ends[1], run);
  }
  ::close(ends[1]);
  const std::string text = read_all(ends[0]);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) return fail(Code::kIo, "the process of a section died, status {}", status);
  CAPSTAN_TRY(Json said, Json::parse(text));
  if (const auto error = said.get_string("error")) return fail(Code::kIo, "{}", *error);
  return std::move(said["ok"]);
}

Result<fleet::FleetSpec> parse_fleet_text(const Options& options, std::string_view text,
                                          const std::string& source) {
  auto spec = workload::parse_fleet(text, source);
  if (!spec) return fail(Code::kInvalid, "{}", spec.error().front().text());
  if (options.scale == 1) return *std::move(spec);
  for (auto& region : spec->regions) {
    for (auto& cluster : region.clusters) {
      for (auto& block : cluster.blocks) {
        for (auto& group : block.ultraservers) group.count = options.scaled(group.count);
        for (auto& group : block.hosts) group.count = options.scaled(group.count);
      }
    }
  }
  return *std::move(spec);
}

Result<fleet::FleetSpec> load_fleet(const Options& options, std::string_view file) {
  const std::filesystem::path path = options.fleets / file;
  CAPSTAN_TRY(const std::string text, read_file(path.string()));
  return parse_fleet_text(options, text, path.string());
}

}  // namespace capstan::apps::bench

// capstan-sim-campaign: random histories of faults against the production controller, independently checked.
//
//   capstan-sim-campaign --seeds 1000 --jobs 2      # what was hit; the first seed that breaks a promise
//   capstan-sim-campaign --seed 17 --trace          # one history again, exactly
//
// How it works: seeds are divided among forked processes; each writes a line a seed to a pipe. A failing plan
// is made smaller and printed with its seed and build. Exit codes: 0 all well, 1 a history failed or a probe
// was never hit, 2 wrong command line.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/build_id.h"
#include "base/log.h"
#include "base/text.h"
#include "sim/campaign/campaign.h"

namespace capstan::apps {
namespace {

using namespace sim::campaign;

#ifdef CAPSTAN_CANARY
constexpr bool kAcknowledgesEarly = true;  // the planted bug
#else
constexpr bool kAcknowledgesEarly = false;
#endif

void tell(const Plan& plan, const Verdict& verdict, bool history) {
  fmt::print("seed {} at {:.1f} s, build {}: {}\n", plan.seed, static_cast<double>(verdict.at_ms) / 1000,
             build_id(), verdict.failure);
  for (const std::string& line : verdict.history) {
    if (history) fmt::print("  {}\n", line);
  }
}

// Seeds first, first + step, …; probes and failures go to the pipe.
int child(std::uint64_t first, std::uint64_t last, std::uint64_t step, int out) {
  Probes probes;
  std::string failed;
  for (std::uint64_t seed = first; seed <= last && failed.empty(); seed += step) {
    const Verdict verdict = Cluster(plan_of(seed), kAcknowledgesEarly).run();
    for (const auto& [name, count] : verdict.probes) probes[name] += count;
    if (!verdict.failure.empty()) failed = fmt::format("F{}\n", seed);
  }
  std::string text = failed;
  for (const auto& [name, count] : probes) text += fmt::format("P{} {}\n", count, name);
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t wrote = ::write(out, text.data() + at, text.size() - at);
    if (wrote <= 0) return 1;
    at += static_cast<std::size_t>(wrote);
  }
  return 0;
}

int replay(std::uint64_t seed, bool trace) {
  const Plan plan = plan_of(seed);
  const Verdict verdict = Cluster(plan, kAcknowledgesEarly).run();
  const Verdict again = Cluster(plan, kAcknowledgesEarly).run();
  if (verdict.failure != again.failure || verdict.state_hash != again.state_hash) {
    fmt::print("seed {} is not the same twice\n", seed);
    return 1;
  }
  if (verdict.failure.empty()) {
    fmt::print("seed {}: all well, state {}\n", seed, verdict.state_hash);
    return 0;
  }
  tell(plan, verdict, trace);
  const Plan small = shrink(plan, verdict.failure, kAcknowledgesEarly);
  fmt::print("smallest plan that fails so, {} of {} operations:\n", small.ops.size(), plan.ops.size());
  for (const Op& op : small.ops)
    fmt::print("  {:>8.1f} s  {}\n", static_cast<double>(op.at_ms) / 1000, op_name(op.kind));
  tell(small, Cluster(small, kAcknowledgesEarly).run(), true);
  return 1;
}

int campaign(std::uint64_t first, std::uint64_t seeds, int jobs, bool quiet) {
  std::vector<int> pipes;
  std::vector<pid_t> children;
  for (int i = 0; i < jobs; ++i) {
    int ends[2];
    if (::pipe(ends) != 0) return 1;
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::close(ends[0]);
      ::_exit(child(first + static_cast<std::uint64_t>(i), first + seeds - 1,
                    static_cast<std::uint64_t>(jobs), ends[1]));
    }
    ::close(ends[1]);
    pipes.push_back(ends[0]);
    children.push_back(pid);
  }
  std::string text;
  for (const int pipe : pipes) {
    char buffer[4096];
    for (ssize_t got; (got = ::read(pipe, buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<std::size_t>(got));
    ::close(pipe);
  }
  bool died = false;
  for (const pid_t pid : children) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    died = died || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  }
  Probes probes;
  std::vector<std::uint64_t> failed;
  for (const auto& line : split(text, '\n')) {
    if (line.starts_with("F"))
      failed.push_back(static_cast<std::uint64_t>(parse_int(line.substr(1)).value_or(0)));
    const std::size_t space = line.find(' ');
    if (line.starts_with("P") && space != std::string_view::npos)
      probes[std::string(line.substr(space + 1))] += parse_int(line.substr(1, space - 1)).value_or(0);
  }
  if (!quiet) {
    for (const auto& [name, count] : probes) fmt::print("{:>9}  {}\n", count, name);
  }
  if (died) {
    fmt::print("a process of the campaign died; try --jobs 1\n");
    return 1;
  }
  if (!failed.empty()) return replay(*std::min_element(failed.begin(), failed.end()), true);
  int missing = 0;
  for (const std::string_view wanted : probes_wanted()) {
    if (probes.contains(wanted) || seeds < static_cast<std::uint64_t>(kProbesFrom)) continue;
    fmt::print("never hit: {}\n", wanted);
    ++missing;
  }
  fmt::print("{} histories, {} kinds of situations, build {}: {}\n", seeds, probes.size(), build_id(),
             missing == 0 ? "all well" : "probes are missing");
  return missing == 0 ? 0 : 1;
}

int run(int argc, char** argv) {
  CLI::App app{"Random histories of faults against the production controller."};
  std::uint64_t seeds = 20, first = 1;
  std::int64_t seed = -1;
  int jobs = 2;
  bool trace = false, quiet = false;
  app.add_option("--seeds", seeds, "so many histories")->check(CLI::Range(1, 10'000'000));
  app.add_option("--from", first, "the first seed");
  app.add_option("--seed", seed, "this one alone, exactly");
  app.add_option("--jobs", jobs, "processes")->check(CLI::Range(1, 256));
  app.add_flag("--trace", trace, "with --seed: its last moments");
  app.add_flag("--quiet", quiet, "no list of what was hit");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  log_configure("controller", trace ? LogLevel::kInfo : LogLevel::kError);
  return seed >= 0 ? replay(static_cast<std::uint64_t>(seed), trace) : campaign(first, seeds, jobs, quiet);
}

}  // namespace
}  // namespace capstan::apps

int main(int argc, char** argv) { return capstan::apps::run(argc, argv); }

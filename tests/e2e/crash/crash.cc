// The crash test: rounds of kill -9 at random moments under a load of submits and cancels, then a checker.
//
//   crash [--rounds N] [--seed S] [--bin DIR] [--keep]
//
// A round lets the load submit a few workloads, waits a random while, kills the controller, the worker, both,
// the process of `capstan up`, a shim or a rank, and lets Capstan recover as a person would (by `capstan up`
// again where that has ended). Prints seed, rounds and counts; exit code 1 on a violation, 77 if there is no
// capstan binary.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "base/log.h"
#include "base/text.h"
#include "checker.h"
#include "house.h"
#include "load.h"

namespace capstan::crash {
namespace {

constexpr int kSubmitsPerRound = 4;  // 200 rounds stay below the number of ended workloads that Capstan keeps
constexpr int kSkipped = 77;

struct Options {
  std::int64_t rounds = 10;
  std::uint64_t seed = static_cast<std::uint64_t>(::getpid());
  std::string bin = std::getenv("CAPSTAN_BIN") != nullptr ? std::getenv("CAPSTAN_BIN") : "build/bin";
  bool keep = false;
};

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const bool has_value = i + 1 < argc;
    if (word == "--keep") {
      options.keep = true;
    } else if (word == "--bin" && has_value) {
      options.bin = argv[++i];
    } else if ((word == "--rounds" || word == "--seed") && has_value) {
      const auto value = parse_int(argv[++i]);
      if (!value || *value < 0) return false;
      (word == "--rounds" ? options.rounds : reinterpret_cast<std::int64_t&>(options.seed)) = *value;
    } else {
      return false;
    }
  }
  return true;
}

int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  ::close(fd);
  return ntohs(address.sin_port);
}

bool kill_process(const House& house, pid_t pid) { return house.owns(pid) && ::kill(pid, SIGKILL) == 0; }

// Kills one thing; its name, or empty if there was none to kill.
std::string strike(House& house, Prng& prng) {
  const std::uint64_t draw = prng.below(100);
  if (draw < 40) return kill_process(house, house.controller_pid()) ? "controller" : "";
  if (draw < 65) return kill_process(house, house.worker_pid()) ? "worker" : "";
  if (draw < 80) {
    const bool worker_first = prng.below(2) == 0;
    if (worker_first) kill_process(house, house.worker_pid());
    ::usleep(static_cast<useconds_t>(prng.below(30'000)));
    const bool killed = kill_process(house, house.controller_pid());
    if (!worker_first) kill_process(house, house.worker_pid());
    return killed ? "both" : "worker";
  }
  if (draw < 85) return kill_process(house, house.up_pid()) ? "up" : "";
  const auto ranks = house.rank_pids();
  if (ranks.empty()) return "";
  const auto& rank = ranks[prng.below(ranks.size())];
  if (draw < 93) return kill_process(house, rank.shim) ? "shim" : "";
  return kill_process(house, rank.child) ? "rank" : "";
}

Result<void> recover(House& house, const std::string& struck, Prng& prng) {
  if (struck != "controller" && struck != "both" && struck != "up") return {};
  house.wait_up_ended();
  ::usleep(static_cast<useconds_t>(prng.below(300'000)));
  return house.start_up();
}

int report(const std::vector<std::string>& violations, const House& house) {
  for (const auto& violation : violations) fmt::print("crash: VIOLATION: {}\n", violation);
  if (!violations.empty()) fmt::print("crash: evidence is in {}\n", house.scratch().string());
  return violations.empty() ? 0 : 1;
}

int run(const Options& options) {
  House house(options.bin, free_port());
  if (const auto up = house.start_up(); !up) return report({up.error().message}, house);
  Prng prng(options.seed);
  std::map<std::string, int> struck_counts;
  Load load(house, prng.next());
  for (std::int64_t round = 1; round <= options.rounds; ++round) {
    load.allow(kSubmitsPerRound);
    ::usleep(static_cast<useconds_t>(prng.below(400'000)));
    const std::string struck = strike(house, prng);
    ++struck_counts[struck.empty() ? "nothing" : struck];
    if (const auto recovered = recover(house, struck, prng); !recovered) {
      return report(
          {fmt::format("round {}: after {} was killed: {}", round, struck, recovered.error().message)},
          house);
    }
    if (round % 20 == 0) fmt::print("crash: round {} of {}\n", round, options.rounds);
    std::fflush(stdout);
  }
  load.stop();
  if (const auto cancelled = load.cancel_sleepers(); !cancelled)
    return report({cancelled.error().message}, house);
  const auto submitted = load.submitted();
  Findings findings = check_outcome(house, submitted);
  if (const int code = house.run({"--data-dir", house.data(), "down"}); code != 0) {
    findings.violations.push_back(fmt::format("capstan down ended with {}", code));
  }
  house.wait_up_ended();
  for (auto& violation : check_remains(house)) findings.violations.push_back(std::move(violation));

  std::string kills;
  for (const auto& [what, count] : struck_counts) kills += fmt::format(" {}={}", what, count);
  int acknowledged = 0, cancels = 0;
  for (const auto& [name, what] : submitted) {
    acknowledged += what.acknowledged;
    cancels += what.cancel_acknowledged;
  }
  fmt::print("crash: seed {}, {} rounds, killed:{}\n", options.seed, options.rounds, kills);
  fmt::print(
      "crash: {} submits ({} acknowledged), {} cancels acknowledged, {} processes started; succeeded {}, "
      "cancelled {}, failed {}\n",
      submitted.size(), acknowledged, cancels, findings.starts, findings.succeeded, findings.cancelled,
      findings.failed);
  if (findings.violations.empty() && !options.keep) house.remove_scratch();
  if (findings.violations.empty()) fmt::print("crash: no violation\n");
  return report(findings.violations, house);
}

}  // namespace
}  // namespace capstan::crash

int main(int argc, char** argv) {
  capstan::crash::Options options;
  if (!capstan::crash::parse(argc, argv, options)) {
    fmt::print(stderr, "usage: crash [--rounds N] [--seed S] [--bin DIR] [--keep]\n");
    return 2;
  }
  if (::access((options.bin + "/capstan").c_str(), X_OK) != 0) {
    fmt::print("crash: skipped: there is no {}/capstan\n", options.bin);
    return capstan::crash::kSkipped;
  }
  return capstan::crash::run(options);
}

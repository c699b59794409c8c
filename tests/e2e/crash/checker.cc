#include "checker.h"

#include <unistd.h>

#include <fstream>
#include <set>
#include <sstream>

namespace capstan::crash {
namespace {

constexpr int kEndWaitMs = 180'000;
constexpr int kForgetWaitMs = 20'000;
constexpr int kOrphanWaitMs = 10'000;

struct Start {
  std::int64_t job = 0, attempt = 0, rank = 0;
  friend auto operator<=>(const Start&, const Start&) = default;
};

bool has_ended(const std::string& state) {
  return state == "succeeded" || state == "failed" || state == "cancelled";
}

struct Known {
  std::string state;  // empty: does not exist
  std::int64_t id = 0;
};

Result<Known> look_up(House& house, const std::string& name) {
  CAPSTAN_TRY(const auto answer, house.request("GET", "/api/v1/workloads/" + name));
  if (answer.status == 404) return Known{};
  if (answer.status != 200) return fail(Code::kUnavailable, "{} answered {}", name, answer.status);
  CAPSTAN_TRY(const Json json, Json::parse(answer.body));
  return Known{json.get_string("state").value_or("?"), json.get_int("id").value_or(0)};
}

// The last known state of each; those that have not ended in time keep theirs.
std::map<std::string, Known> wait_for_ends(House& house, const std::map<std::string, Submitted>& submitted) {
  std::map<std::string, Known> known;
  std::set<std::string> open;
  for (const auto& [name, what] : submitted) open.insert(name);
  for (int waited_ms = 0; !open.empty() && waited_ms < kEndWaitMs; waited_ms += 100) {
    for (auto it = open.begin(); it != open.end();) {
      const auto now = look_up(house, *it);
      if (now) known[*it] = *now;
      it = now && (now->state.empty() || has_ended(now->state)) ? open.erase(it) : std::next(it);
    }
    if (!open.empty()) ::usleep(100'000);
  }
  return known;
}

std::multiset<Start> read_starts(const House& house, std::vector<std::string>& violations) {
  std::multiset<Start> starts;
  std::ifstream file(house.starts_file());
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    Start start;
    std::string word;
    if (words >> start.job >> start.attempt >> start.rank >> word && word == "start") {
      starts.insert(start);
    } else {
      violations.push_back("the file of starts has the line '" + line + "'");
    }
  }
  return starts;
}

void check_gang(const std::string& name, const Submitted& what, std::int64_t id,
                const std::multiset<Start>& starts, std::vector<std::string>& violations) {
  std::int64_t last = 0;
  for (const Start& start : starts) {
    if (start.job == id) last = std::max(last, start.attempt);
  }
  for (std::int64_t rank = 0; rank < what.processes; ++rank) {
    if (starts.count({id, last, rank}) == 0) {
      violations.push_back(fmt::format("{} (job {}) succeeded, but rank {} of its last attempt {} never ran",
                                       name, id, rank, last));
    }
  }
}

}  // namespace

Findings check_outcome(House& house, const std::map<std::string, Submitted>& submitted) {
  Findings findings;
  const auto known = wait_for_ends(house, submitted);
  const auto starts = read_starts(house, findings.violations);
  findings.starts = starts.size();
  for (auto it = starts.begin(); it != starts.end(); it = starts.upper_bound(*it)) {
    if (const std::size_t count = starts.count(*it); count > 1) {
      findings.violations.push_back(fmt::format("job {} attempt {} rank {} was started {} times", it->job,
                                                it->attempt, it->rank, count));
    }
  }
  for (const auto& [name, what] : submitted) {
    const auto found = known.find(name);
    const Known now = found == known.end() ? Known{"unknown", 0} : found->second;
    if (now.state.empty()) {
      if (what.acknowledged) findings.violations.push_back(name + " was acknowledged and is lost");
      continue;
    }
    if (!has_ended(now.state)) {
      findings.violations.push_back(fmt::format("{} is {} and does not end", name, now.state));
      continue;
    }
    findings.succeeded += now.state == "succeeded";
    findings.failed += now.state == "failed";
    findings.cancelled += now.state == "cancelled";
    if (what.flavour == Flavour::kSleeper && what.cancel_acknowledged && now.state != "cancelled") {
      findings.violations.push_back(
          fmt::format("the cancel of {} was acknowledged, but it is {}", name, now.state));
    }
    if (now.state == "failed")
      findings.violations.push_back(name + " failed, although its budget cannot be used up");
    if (now.state == "succeeded" && what.flavour == Flavour::kGang)
      check_gang(name, what, now.id, starts, findings.violations);
  }
  for (int waited_ms = 0; house.rank_records() > 0; waited_ms += 50) {
    if (waited_ms >= kForgetWaitMs) {
      findings.violations.push_back(
          fmt::format("the worker still keeps {} records of ranks that are over", house.rank_records()));
      break;
    }
    ::usleep(50'000);
  }
  return findings;
}

std::vector<std::string> check_remains(House& house) {
  std::vector<std::string> violations;
  std::vector<pid_t> left;
  for (int waited_ms = 0; waited_ms < kOrphanWaitMs; waited_ms += 100) {
    left = house.processes();
    if (left.empty()) break;
    ::usleep(100'000);
  }
  for (const pid_t pid : left) violations.push_back(fmt::format("process {} is left over", pid));
  if (const int code = house.run({"journal", "verify", house.data() / "journal.sqlite"}); code != 0) {
    violations.push_back(fmt::format("capstan journal verify ended with {}; see {}", code,
                                     (house.scratch() / "up.log").string()));
  }
  return violations;
}

}  // namespace capstan::crash

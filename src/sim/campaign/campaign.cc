// How it works: delta debugging: ever smaller pieces of the plan are left out as long as the same kind of
// failure remains.
#include "sim/campaign/campaign.h"

#include <algorithm>

namespace capstan::sim::campaign {

const std::vector<std::string_view>& probes_wanted() {
  static const std::vector<std::string_view> kWanted = {"a batch was durable, and nobody was told",
                                                        "a batch was lost before its fsync",
                                                        "a torn row was cut off",
                                                        "recovered from a snapshot and its tail",
                                                        "the controller recovered",
                                                        "a call timed out",
                                                        "a message was lost",
                                                        "a message was sent twice",
                                                        "an answer came to nobody",
                                                        "a worker met a new controller",

                                                        "a start came for a rank that is known",
                                                        "a rank failed by itself",
                                                        "work was cancelled",
                                                        "an operator changed a host",
                                                        "a GPU was declared broken",
                                                        "a process died",
                                                        "a worker died, its ranks lived on",
                                                        "a host died with ranks on it",
                                                        "the controller was cut off from everybody",
                                                        "a host was cut off with ranks running",
                                                        "the network was bad",
                                                        "a host was slow",
                                                        "the clock jumped",
                                                        "a snapshot was taken",
                                                        "a command found nobody",
                                                        "a gang began again",
                                                        "a gang was stopped: failure",
                                                        "a gang was stopped: preempted",
                                                        "a gang was stopped: drain",
                                                        "a gang was stopped: cancel",
                                                        "a gang resumes",
                                                        "room was kept for one that waits",
                                                        "room was kept for one that displaces",
                                                        "a claim ended",
                                                        "a host became lost",
                                                        "a host became suspect",
                                                        "a host became healthy",
                                                        "a host was quarantined",
                                                        "a replica began again"};
  return kWanted;
}

std::string kind_of(const std::string& failure) {
  std::string out;
  bool in_word = false, skips = false;
  std::string word;
  for (const char c : failure + " ") {
    if (c != ' ') {
      word += c;
      skips = skips || (c >= '0' && c <= '9');
      in_word = true;
      continue;
    }
    if (in_word && !skips) out += word + " ";
    word.clear();
    in_word = skips = false;
  }
  return out;
}

Plan shrink(const Plan& plan, const std::string& failure, bool acknowledges_early) {
  const std::string kind = kind_of(failure);
  const auto fails = [&](const Plan& candidate) {
    const Verdict verdict = Cluster(candidate, acknowledges_early).run();
    return !verdict.failure.empty() && kind_of(verdict.failure) == kind;
  };
  Plan best = plan;
  for (std::size_t piece = best.ops.size() / 2; piece > 0; piece /= 2) {
    for (std::size_t at = 0; at < best.ops.size();) {
      Plan candidate = best;
      const auto begin = candidate.ops.begin() + static_cast<std::ptrdiff_t>(at);
      candidate.ops.erase(begin,
                          begin + static_cast<std::ptrdiff_t>(std::min(piece, candidate.ops.size() - at)));
      if (fails(candidate)) {
        best = std::move(candidate);
      } else {
        at += piece;
      }
    }
  }
  return best;
}

}  // namespace capstan::sim::campaign

// How it works: arrivals and ends of steps in order of time; the router sees loads and caches at that moment.
// A prompt's blocks are keyed by the trace's ids; equal ids mean equal prefixes.
#include "sim/serving/serve_replay.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/text.h"
#include "routing/routing.h"

namespace capstan::sim {
namespace {

constexpr std::string_view kRoutes[] = {"kv-aware", "kv-estimated", "least-loaded", "round-robin"};
constexpr double kWindowS = 60;  // of the charts

class Run {
 public:
  Run(const std::vector<Request>& requests, const ServeSetup& setup, const ServedModel& model)
      : setup_(setup) {
    for (std::int64_t i = 0; i < setup.replicas; ++i) {
      replicas_.emplace_back(model, setup.engine, setup.block_tokens);
      believed_.emplace_back(static_cast<std::size_t>(replicas_.back().blocks()));
      loads_.push_back({.id = fmt::format("replica-{}", i)});
    }
    computed_.resize(replicas_.size());
    out_.served.resize(requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) {
      Served& served = out_.served[i];
      served.request = &requests[i];
      served.arrived_s =
          static_cast<double>(requests[i].time_us) * 1e-6 * static_cast<double>(setup.arrivals_percent) / 100;
      for (const std::uint32_t id : requests[i].blocks) served.chain.push_back(std::uint64_t{id} + 1);
    }
  }

  ServeResult run() {
    std::size_t next = 0;
    while (true) {
      const auto replica =
          std::min_element(replicas_.begin(), replicas_.end(),
                           [](const SimReplica& a, const SimReplica& b) { return a.next_s() < b.next_s(); });
      const bool arrives = next < out_.served.size() && out_.served[next].arrived_s <= replica->next_s();
      if (arrives) {
        arrive(out_.served[next++]);
      } else if (std::isfinite(replica->next_s())) {
        step(*replica);
      } else {
        break;
      }
    }
    finish();
    return std::move(out_);
  }

 private:
  std::int64_t expected_answer() const { return ended_ == 0 ? 256 : answered_tokens_ / ended_; }

  void arrive(Served& served) {
    const Request& request = *served.request;
    now_s_ = served.arrived_s;
    std::size_t seen = 0;
    while (seen < served.chain.size() && ever_.contains(served.chain[seen])) ++seen;
    ever_.insert(served.chain.begin() + static_cast<std::ptrdiff_t>(seen), served.chain.end());
    if (!replicas_.front().fits(request)) {
      ++out_.refused;
      return;
    }
    out_.input_tokens += request.input_tokens;
    out_.optimal_hit_tokens +=
        std::min(static_cast<std::int64_t>(seen) * setup_.block_tokens, request.input_tokens - 1);
    served.replica = choose(served);
    SimReplica& replica = replicas_[served.replica];
    const std::int64_t cached = loads_[served.replica].cached_tokens;
    served.charged = request.input_tokens - std::min(cached, request.input_tokens - 1) + expected_answer();
    loads_[served.replica].tokens_outstanding += served.charged;
    if (setup_.route == Route::kKvEstimated) believed_[served.replica].touch(served.chain);
    replica.add(&served, now_s_);
  }

  std::size_t choose(const Served& served) {
    if (setup_.route == Route::kRoundRobin) return static_cast<std::size_t>(turn_++) % replicas_.size();
    for (std::size_t i = 0; i < loads_.size(); ++i) {
      const auto& cache = setup_.route == Route::kKvEstimated ? believed_[i] : replicas_[i].cache();
      loads_[i].cached_tokens =
          setup_.route == Route::kLeastLoaded
              ? 0
              : static_cast<std::int64_t>(cache.match(served.chain)) * setup_.block_tokens;
    }
    const auto key = static_cast<std::uint64_t>(served.request - out_.served.front().request) + 1;
    return *routing::choose(loads_, {.key = key}, {.affinity_window_tokens = setup_.affinity_window_tokens});
  }

  void step(SimReplica& replica) {
    now_s_ = replica.next_s();
    first_.clear();
    ended_now_.clear();
    replica.advance(first_, ended_now_);
    for (Served* served : first_) {  // its prompt is done
      const std::int64_t left = std::min(served->charged, expected_answer());
      loads_[served->replica].tokens_outstanding -= served->charged - left;
      served->charged = left;
    }
    for (Served* served : ended_now_) {
      loads_[served->replica].tokens_outstanding -= served->charged;
      ++ended_;
      answered_tokens_ += served->request->output_tokens;
      out_.hit_tokens += served->hit_tokens;
      computed_[served->replica] +=
          served->request->input_tokens - served->hit_tokens + served->request->output_tokens;
      stayed_s_ += served->ended_s - served->admitted_s;
      if (served->ttft_s() <= setup_.ttft_slo_s && served->tpot_s() <= setup_.tpot_slo_s) ++out_.attained;
    }
  }

  void finish();
  void charts();

  const ServeSetup& setup_;
  ServeResult out_;
  std::vector<SimReplica> replicas_;
  std::vector<routing::BlockCache> believed_;
  std::vector<routing::ReplicaLoad> loads_;
  std::vector<std::int64_t> computed_;
  std::unordered_set<std::uint64_t> ever_;
  std::vector<Served*> first_, ended_now_;
  std::int64_t turn_ = 0, ended_ = 0, answered_tokens_ = 0;
  double now_s_ = 0, stayed_s_ = 0;
};

void Run::finish() {
  out_.duration_s = now_s_;
  std::int64_t most = 0, sum = 0;
  double busy = 0;
  for (std::size_t i = 0; i < replicas_.size(); ++i) {
    most = std::max(most, computed_[i]);
    sum += computed_[i];
    busy += replicas_[i].busy_s();
  }
  const auto count = static_cast<double>(replicas_.size());
  if (sum > 0) out_.load_max_over_mean = static_cast<double>(most) * count / static_cast<double>(sum);
  if (now_s_ > 0) {
    out_.busy = busy / count / now_s_;
    out_.mean_running = stayed_s_ / count / now_s_;
  }
  charts();
}

void Run::charts() {
  Results& results = out_.results;
  results.scenario = "serve";
  results.variant = std::string(route_name(setup_.route));
  results.duration_ms = static_cast<std::int64_t>(now_s_ * 1'000);
  const auto windows = static_cast<std::size_t>(now_s_ / kWindowS) + 1;
  struct Window {
    std::int64_t ended = 0, attained = 0, input = 0, hits = 0;
  };
  std::vector<Window> window(windows);
  std::vector<std::vector<std::int64_t>> computed(replicas_.size(), std::vector<std::int64_t>(windows));
  std::vector<std::int64_t> ttft, tpot, waits;
  for (const Served& served : out_.served) {
    if (served.ended_s < 0) continue;
    ttft.push_back(std::llround(served.ttft_s() * 1'000));
    tpot.push_back(std::llround(served.tpot_s() * 1'000));
    waits.push_back(std::llround((served.admitted_s - served.arrived_s) * 1'000));
    const auto at = static_cast<std::size_t>(served.first_s / kWindowS);
    ++window[at].ended;
    window[at].attained += served.ttft_s() <= setup_.ttft_slo_s && served.tpot_s() <= setup_.tpot_slo_s;
    window[at].input += served.request->input_tokens;
    window[at].hits += served.hit_tokens;
    computed[served.replica][at] +=
        served.request->input_tokens - served.hit_tokens + served.request->output_tokens;
  }
  results.distributions = {distribution("time to first token", ttft),
                           distribution("time per output token", tpot),
                           distribution("wait for admission", waits)};
  Chart slo{"Objectives met",
            "Requests whose first token and whose pace were in time, by minute.",
            false,
            {},
            {{"in time", "%", {}}}};
  Chart hits{"Prefix hits", "Of the prompts' tokens, by minute.", false, {}, {{"from the cache", "%", {}}}};
  Chart load{"Tokens computed by replica", "Prompts less hits, and answers, by minute.", true, {}, {}};
  for (std::size_t i = 0; i < replicas_.size(); ++i)
    load.series.push_back({loads_[i].id, "tokens", computed[i]});
  for (std::size_t i = 0; i < windows; ++i) {
    for (Chart* chart : {&slo, &hits, &load})
      chart->times_ms.push_back(static_cast<std::int64_t>(i) * 60'000);
    slo.series[0].points.push_back(window[i].ended == 0 ? 100 : window[i].attained * 100 / window[i].ended);
    hits.series[0].points.push_back(window[i].input == 0 ? 0 : window[i].hits * 100 / window[i].input);
  }
  results.charts = {std::move(slo), std::move(hits), std::move(load)};
  const auto milli = [](std::int64_t part, std::int64_t whole) {
    return whole == 0 ? 0 : part * 1'000 / whole;
  };
  results.totals = {{"requests", static_cast<std::int64_t>(out_.served.size())},
                    {"refused", out_.refused},
                    {"slo_attained_milli", milli(out_.attained, ended_)},
                    {"hit_milli", milli(out_.hit_tokens, out_.input_tokens)},
                    {"hit_optimum_milli", milli(out_.optimal_hit_tokens, out_.input_tokens)},
                    {"load_max_over_mean_percent", std::llround(out_.load_max_over_mean * 100)},
                    {"busy_milli", std::llround(out_.busy * 1'000)}};
  results.notes = {
      fmt::format(
          "{} on {} replicas of {} {}, room for {} tokens of context each; prefix blocks of {} tokens.",
          setup_.model, setup_.replicas, setup_.engine.gpus, setup_.engine.gpu.name,
          replicas_.front().blocks() * setup_.block_tokens, setup_.block_tokens),
      fmt::format("Objectives: first token within {} s, then a token every {} ms.", setup_.ttft_slo_s,
                  setup_.tpot_slo_s * 1'000),
      "Steps are a roofline with chunked prefill (docs/simulation-models.md); routing is the gateway's own "
      "code."};
}

}  // namespace

std::string_view route_name(Route route) { return kRoutes[static_cast<int>(route)]; }

Result<Route> route_of(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kRoutes); ++i) {
    if (kRoutes[i] == name) return static_cast<Route>(i);
  }
  return fail(Code::kInvalid, "no policy is called '{}'; there are {}", name, fmt::join(kRoutes, ", "));
}

Result<ServeResult> serve_replay(const std::vector<Request>& requests, const ServeSetup& setup) {
  const ServedModel* model = served_model(setup.model);
  if (model == nullptr)
    return fail(Code::kInvalid, "no model is called '{}'; there are {}", setup.model, served_model_names());
  if (setup.replicas < 1) return fail(Code::kInvalid, "at least one replica is needed");
  if (kv_tokens(*model, setup.engine) < 4 * setup.block_tokens) {
    return fail(
        Code::kInvalid,
        "{} does not fit on {} {} with room for context: its weights are {:.0f} GB; give a replica more GPUs",
        setup.model, setup.engine.gpus, setup.engine.gpu.name,
        (model->dense_bytes + model->expert_bytes) / 1e9);
  }
  return Run(requests, setup, *model).run();
}

}  // namespace capstan::sim

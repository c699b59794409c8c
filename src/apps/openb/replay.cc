// How it works: three streams of random numbers from the seed (hosts, copies, order), so that every policy
// sees the same hosts and pods; then the loop that a controller would run: place, hold, tell the placer.
#include "apps/openb/replay.h"

#include <numeric>
#include <optional>

#include "base/prng.h"
#include "scheduler/single_host.h"

namespace capstan::apps {
namespace {

using namespace scheduler;

constexpr std::size_t kPodsMax = 10'000'000;

template <class T>
void shuffle(std::vector<T>& items, Prng& prng) {
  for (std::size_t left = items.size(); left > 1; --left) {
    std::swap(items[left - 1], items[static_cast<std::size_t>(prng.below(left))]);
  }
}

Result<Inventory> make_inventory(const OpenbTrace& trace, const OpenbOptions& options) {
  std::vector<const OpenbNode*> nodes;
  for (const OpenbNode& node : trace.nodes) nodes.push_back(&node);
  Prng prng(Prng::at(options.seed, 0));
  if (!options.hosts_in_order) shuffle(nodes, prng);
  Inventory inventory;
  fleet::Topology& topology = inventory.topology();
  const fleet::BlockId block = topology.block("openb", "openb", "openb");
  for (const OpenbNode* node : nodes) {
    const Capacity& has = node->capacity;
    const fleet::ClassId host_class = topology.intern(
        {.name = fmt::format("{}-{}-{}-{}", node->gpu_model, has.gpus, has.milli_cpus, has.memory_bytes),
         .capacity = has,
         .gpu_model = node->gpu_model,
         .gpu_memory_bytes = 0,
         .fractional = true,
         .gpu_slices = {}});
    CAPSTAN_TRY(const HostId host, topology.add_host(block, host_class, node->name));
    inventory.sync();
    inventory.set_health(host, fleet::Health::kHealthy);
  }
  return inventory;
}

Result<std::vector<const HostRequest*>> make_arrivals(const OpenbTrace& trace, std::int64_t capacity_milli,
                                                      std::uint64_t seed) {
  std::vector<const HostRequest*> out;
  std::int64_t asked = 0;
  for (const HostRequest& pod : trace.pods) {
    asked += gpu_milli_of(pod.each);
    out.push_back(&pod);
  }
  if (asked == 0) return fail(Code::kInvalid, "no pod of the trace asks for a GPU");
  Prng copies(Prng::at(seed, 1));
  while (asked * 100 < capacity_milli * kOpenbPercentMax) {
    if (out.size() >= kPodsMax) {
      return fail(Code::kInvalid, "{} pods do not ask for 130% of the GPUs: the pods are too small",
                  kPodsMax);
    }
    const HostRequest& pod = trace.pods[static_cast<std::size_t>(copies.below(trace.pods.size()))];
    asked += gpu_milli_of(pod.each);
    out.push_back(&pod);
  }
  Prng order(Prng::at(seed, 2));
  shuffle(out, order);
  return out;
}

Result<std::unique_ptr<RoomPolicy>> make_policy(const OpenbTrace& trace, const std::string& name) {
  if (name == "best_fit") return best_fit_policy();
  if (name == "first_fit") return first_fit_policy();
  if (name != "fgd")
    return fail(Code::kInvalid, "no policy '{}'; there are best_fit, fgd and first_fit", name);
  WorkloadHistogram histogram({.kinds_max = 4'096, .window = INT64_MAX / 2});
  for (const HostRequest& pod : trace.pods) histogram.add(pod);
  return fragmentation_policy(histogram.mix());
}

}  // namespace

Result<OpenbRun> replay_openb(const OpenbTrace& trace, const OpenbOptions& options) {
  OpenbRun run;
  CAPSTAN_TRY(Inventory inventory, make_inventory(trace, options));
  run.capacity_milli = gpu_milli_of(inventory.total());
  if (run.capacity_milli == 0) return fail(Code::kInvalid, "no node of the trace has a GPU");
  CAPSTAN_TRY(const auto arrivals, make_arrivals(trace, run.capacity_milli, options.seed));
  CAPSTAN_TRY(auto policy, make_policy(trace, options.policy));
  using Ties = SingleHostPlacer::Ties;
  SingleHostPlacer placer(std::move(policy), {.ties = options.ties_random ? Ties::kRandom : Ties::kLowestHost,
                                              .seed = Prng::at(options.seed, 3)});
  std::int64_t asked = 0, allocated = 0;
  std::size_t percent = 0;
  for (const HostRequest* pod : arrivals) {
    ++run.pods;
    asked += gpu_milli_of(pod->each);
    const std::optional<HostChoice> choice = placer.place(inventory, *pod);
    if (choice) {
      ++run.placed;
      inventory.hold(choice->host, run.pods, 1, pod->each, choice->gpus);
      placer.changed(choice->host);
      allocated += gpu_milli_of(pod->each);
    }
    const std::uint64_t answer =
        choice ? std::uint64_t{index(choice->host)} << 32 | choice->gpus : UINT64_MAX;
    run.fingerprint = Prng::mix(run.fingerprint ^ answer) + 1;
    for (; percent <= kOpenbPercentMax &&
           asked * 100 >= run.capacity_milli * static_cast<std::int64_t>(percent);
         ++percent) {
      run.allocated_milli[percent] = allocated;
    }
  }
  return run;
}

}  // namespace capstan::apps

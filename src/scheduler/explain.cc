// How it works: looks for the dimension (cpus, memory, gpus) that binds, and words it with its numbers.
#include <algorithm>

#include "scheduler/scheduler.h"
#include "workload/quantity.h"

namespace capstan::scheduler {
namespace {

struct Dimension {
  std::string_view unit;
  std::int64_t Capacity::*amount;
  std::string (*format)(std::int64_t);
};

std::string cpus(std::int64_t milli) { return workload::format_milli_cpus(milli); }
std::string bytes(std::int64_t count) { return workload::format_bytes(count); }
std::string whole(std::int64_t count) { return std::to_string(count); }
constexpr Dimension kDimensions[] = {{" cpus", &Capacity::milli_cpus, cpus},
                                     {" of memory", &Capacity::memory_bytes, bytes},
                                     {" gpus", &Capacity::gpus, whole}};

std::string say(const Dimension& dimension, const Capacity& capacity) {
  const std::int64_t amount = std::max<std::int64_t>(capacity.*dimension.amount, 0);
  if (dimension.amount == &Capacity::memory_bytes && amount == 0) return "none";
  return dimension.format(amount);
}

std::string too_large(const Inventory& inventory, const Request& request) {
  for (const Dimension& dimension : kDimensions) {
    Capacity largest;
    for (const auto& [name, entry] : inventory.hosts()) {
      if (entry.capacity.*dimension.amount > largest.*dimension.amount) largest = entry.capacity;
    }
    if (request.each.*dimension.amount > largest.*dimension.amount) {
      return fmt::format("rank needs {}{}, the largest host has {}", say(dimension, request.each),
                         dimension.unit, say(dimension, largest));
    }
  }
  return "no host has cpus, memory and gpus for one rank at once";
}

std::string gang_too_large(const Inventory& inventory, const Request& request) {
  std::int64_t ranks = 0;
  for (const auto& [name, entry] : inventory.hosts())
    ranks += std::min(request.ranks, fit(entry.capacity, request.each));
  const Capacity need = times(request.each, request.ranks);
  Capacity have;
  for (const auto& [name, entry] : inventory.hosts()) have = have + entry.capacity;
  for (const Dimension& dimension : kDimensions) {
    if (need.*dimension.amount <= have.*dimension.amount) continue;
    return fmt::format("{} ranks need {}{}, all hosts together have {}: room for {} at most", request.ranks,
                       say(dimension, need), dimension.unit, say(dimension, have), ranks);
  }
  return fmt::format("needs {} ranks, all hosts together have room for {} at most", request.ranks, ranks);
}

std::string busy(const Inventory& inventory, const Request& request, const std::vector<Holder>& holders) {
  Capacity free;
  for (const auto& [name, entry] : inventory.hosts()) {
    if (entry.health == fleet::Health::kHealthy) free = free + entry.room();
  }
  const Capacity need = times(request.each, request.ranks);
  for (const Dimension& dimension : kDimensions) {
    if (need.*dimension.amount <= free.*dimension.amount) continue;
    const std::string have = say(dimension, free);
    std::string text = fmt::format("needs {}{}, {} {} free", say(dimension, need), dimension.unit, have,
                                   have == "1" ? "is" : "are");
    std::vector<const Holder*> named;
    for (const Holder& holder : holders) {
      if (holder.held.*dimension.amount > 0) named.push_back(&holder);
    }
    std::stable_sort(named.begin(), named.end(), [&](const Holder* a, const Holder* b) {
      return a->held.*dimension.amount > b->held.*dimension.amount;
    });
    for (std::size_t i = 0; i < std::min<std::size_t>(named.size(), 3); ++i) {
      text += fmt::format("{} {} {} holds {}", i == 0 ? ";" : ",", named[i]->kind, named[i]->name,
                          say(dimension, named[i]->held));
    }
    if (named.size() > 3) text += fmt::format(", {} more hold the rest", named.size() - 3);
    return text;
  }
  return fmt::format("needs {} ranks; what is free is split over hosts so that they do not all fit",
                     request.ranks);
}

}  // namespace

std::string explain(const Refusal& refusal, const Inventory& inventory, const Request& request,
                    const std::vector<Holder>& holders) {
  switch (refusal.reason) {
    case Reason::kNoHosts:
      return "no host has joined yet";
    case Reason::kRankTooLarge:
      return too_large(inventory, request);
    case Reason::kGangTooLarge:
      return gang_too_large(inventory, request);
    case Reason::kBusy:
      return busy(inventory, request, holders);
    case Reason::kHostsUnhealthy: {
      std::string names;
      for (const auto& [name, entry] : inventory.hosts()) {
        if (entry.health == fleet::Health::kHealthy) continue;
        names += fmt::format("{}{} is {}", names.empty() ? "" : ", ", name,
                             entry.health == fleet::Health::kLost ? "lost" : "suspect");
      }
      return "waits for a host to come back: " + names;
    }
  }
  return "";
}

}  // namespace capstan::scheduler

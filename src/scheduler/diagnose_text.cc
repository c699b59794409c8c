// How it works: the sentence is built in four parts: what is needed and what the best place has; who holds
// the rest and what is away; when; what would do instead.
#include <fmt/format.h>

#include <algorithm>

#include "scheduler/diagnose.h"
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

std::string count_of(std::int64_t count, std::string_view one) {
  return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
}

std::string_view place_name(Level level) {
  switch (level) {
    case Level::kHost:
      return "on one host";
    case Level::kDomain:
      return "in one UltraServer";
    case Level::kBlock:
      return "in one spine block";
    case Level::kCluster:
      return "in one cluster";
    case Level::kRegion:
      return "in one region";
    case Level::kNone:
      break;
  }
  return "in the fleet";
}

class Sentence {
 public:
  Sentence(const Diagnosis& diagnosis, const Inventory& inventory, const Request& request,
           const JobNames& job_name)
      : diagnosis_(diagnosis),
        inventory_(inventory),
        request_(request),
        group_(request.groups[std::min(diagnosis.refusal.group, request.groups.size() - 1)]),
        job_name_(job_name) {}

  std::string never() const {
    switch (diagnosis_.refusal.reason) {
      case Reason::kNoSuchPlace:
        return no_such_place();
      case Reason::kRankTooLarge:
        return rank_too_large();
      case Reason::kSegmentTooLarge:
        return segment_too_large();
      case Reason::kQuotaNever:
        return "its tenant may never hold so much";
      default:
        return gang_too_large();
    }
  }

  std::string not_now() const {
    if (diagnosis_.refusal.reason == Reason::kNoHosts) return "no host has joined yet";
    if (diagnosis_.refusal.reason == Reason::kQuota) return "its tenant may not hold more now";
    if (!diagnosis_.domain) return "no host has room for one rank";
    if (diagnosis_.refusal.reason == Reason::kHostsUnavailable && diagnosis_.holders.empty() && one_by_one())
      return "waits for a host to come back: " + away_by_name();
    return one_by_one() ? by_amount() : by_segments();
  }

 private:
  bool whole_trays() const { return diagnosis_.ranks_per_host <= 1; }
  std::string ranks(std::int64_t count) const { return count_of(count, whole_trays() ? "tray" : "rank"); }
  std::string segments() const {
    return diagnosis_.segment == 1
               ? ranks(diagnosis_.need)
               : fmt::format("{} of {}", count_of(diagnosis_.need, "segment"), ranks(diagnosis_.segment));
  }
  std::string shape() const {
    const Capacity& each = group_.shape.each;
    if (each.gpus > 0) return fmt::format("{} GPU{}", each.gpus, each.gpus == 1 ? "" : "s");
    if (each.gpu_milli > 0) return fmt::format("{} of a GPU", workload::format_milli_gpus(each.gpu_milli));
    return fmt::format("{} cpus", cpus(each.milli_cpus));
  }
  // Ranks that need not be together on hosts that stand alone: amounts say more than counts of places.
  bool one_by_one() const {
    const fleet::Domain& best = inventory_.topology().domain(fleet::DomainId(diagnosis_.domain->id));
    return diagnosis_.segment == 1 && best.hosts == 1;
  }

  std::string no_such_place() const {
    if (!request_.cluster.empty() && !inventory_.topology().find_cluster(request_.cluster))
      return fmt::format("there is no cluster {}", request_.cluster);
    if (!request_.region.empty() && !inventory_.topology().find_region(request_.region))
      return fmt::format("there is no region {}", request_.region);
    if (!group_.shape.host_class.empty())
      return fmt::format("no host is of class {}", group_.shape.host_class);
    if (!group_.shape.gpu_model.empty())
      return fmt::format("no host has GPUs of model {}", group_.shape.gpu_model);
    return "no host is in the place that it names";
  }

  std::string rank_too_large() const {
    const auto& topology = inventory_.topology();
    std::vector<char> there(topology.classes());
    for (std::uint32_t i = 0; i < inventory_.hosts(); ++i) there[index(topology.class_of(HostId{i}))] = 1;
    // Of the hosts of the model and class that it names.
    Shape any = group_.shape;
    any.each = {};
    const Capacity each = request_.required == Level::kHost && diagnosis_.refusal.group == 0
                              ? times(group_.shape.each, group_.ranks)
                              : group_.shape.each;
    for (const Dimension& dimension : kDimensions) {
      Capacity largest;
      for (std::uint32_t i = 0; i < topology.classes(); ++i) {
        const auto& host_class = topology.host_class(fleet::ClassId(i));
        if (there[i] == 0 || !allows(any, host_class)) continue;
        largest.*dimension.amount =
            std::max(largest.*dimension.amount, host_class.capacity.*dimension.amount);
      }
      if (each.*dimension.amount <= largest.*dimension.amount) continue;
      const bool all = request_.required == Level::kHost && group_.ranks > 1;
      return fmt::format(
          "{} {}{}, the largest host has {}",
          all ? fmt::format("{} ranks on one host need", group_.ranks) : std::string("rank needs"),
          say(dimension, each), dimension.unit, say(dimension, largest));
    }
    if (each.gpu_milli > 0) return fmt::format("no host may share a GPU in parts of {}", shape());
    return "no host has cpus, memory and gpus for one rank at once";
  }

  std::string segment_too_large() const {
    const std::int64_t per_host = std::max<std::int64_t>(diagnosis_.ranks_per_host, 1);
    const auto trays = [&](std::int64_t count) { return (count + per_host - 1) / per_host; };
    const bool all = request_.required == Level::kDomain || group_.segment == 0;
    const std::string needed = fmt::format(
        "{}{} ranks x {} {} {} in one UltraServer", all ? "" : "a segment of ", diagnosis_.segment, shape(),
        all ? "need" : "needs", count_of(trays(diagnosis_.segment), "tray"));
    if (!diagnosis_.domain) return needed;
    const fleet::Domain& best = inventory_.topology().domain(fleet::DomainId(diagnosis_.domain->id));
    std::string has = fmt::format("{}, the largest has {}", needed, diagnosis_.domain->fits / per_host);
    if (best.spares > 0) has += fmt::format(" ({} less {})", best.hosts, count_of(best.spares, "spare"));
    return has;
  }

  std::string gang_too_large() const {
    const Candidate* best = candidate();
    const std::int64_t room = best == nullptr ? 0 : best->fits * diagnosis_.segment;
    if (diagnosis_.segment > 1) {
      return fmt::format("needs {} of {} {}, the largest has room for {}",
                         count_of(diagnosis_.need, "segment"), ranks(diagnosis_.segment), place_name(level()),
                         best == nullptr ? 0 : best->fits);
    }
    Capacity have;
    const auto& topology = inventory_.topology();
    for (std::uint32_t i = 0; i < inventory_.hosts(); ++i) {
      const HostId id{i};
      const bool here =
          best == nullptr || best->level != Level::kCluster || index(topology.cluster_of(id)) == best->id;
      if (here && allows(group_.shape, topology.host_class(id))) have = have + inventory_.capacity(id);
    }
    const Capacity need = times(group_.shape.each, group_.ranks);
    const std::string where = topology.clusters() == 1 ? "all hosts together have"
                              : best != nullptr        ? "the hosts of " + name(*best) + " have"
                                                       : "all hosts together have";
    for (const Dimension& dimension : kDimensions) {
      if (need.*dimension.amount <= have.*dimension.amount) continue;
      return fmt::format("{} ranks need {}{}, {} {}: room for {} at most", group_.ranks, say(dimension, need),
                         dimension.unit, where, say(dimension, have), room);
    }
    return fmt::format("needs {} ranks, {} room for {} at most", group_.ranks, where, room);
  }

  Level level() const {
    if (diagnosis_.need == 1) return Level::kDomain;
    return request_.required == Level::kNone && diagnosis_.refusal.group == 0    ? Level::kNone
           : request_.required == Level::kBlock && diagnosis_.refusal.group == 0 ? Level::kBlock
                                                                                 : Level::kCluster;
  }

  const Candidate* candidate() const {
    const auto& best = level() == Level::kDomain  ? diagnosis_.domain
                       : level() == Level::kBlock ? diagnosis_.block
                                                  : diagnosis_.cluster;
    return best ? &*best : nullptr;
  }

  std::string name(const Candidate& candidate) const {
    const auto& topology = inventory_.topology();
    if (candidate.level == Level::kDomain) return topology.domain(fleet::DomainId(candidate.id)).name;
    const auto cluster_name = [&](fleet::ClusterId id) {
      const auto& cluster = topology.cluster(id);
      return topology.region(cluster.region).name + "/" + cluster.name;
    };
    if (candidate.level == Level::kCluster) return cluster_name(fleet::ClusterId(candidate.id));
    const auto& block = topology.block(fleet::BlockId(candidate.id));
    return cluster_name(block.cluster) + "/" + block.name;
  }

  std::string by_segments() const {
    const Candidate& best = *candidate();
    std::string out = diagnosis_.need == 1 ? fmt::format("needs {} in one UltraServer; the best, {}, has {}",
                                                         ranks(diagnosis_.segment), name(best), best.fits)
                                           : fmt::format("needs {} {}; the best, {}, has {}", segments(),
                                                         place_name(level()), name(best), best.fits);
    std::vector<std::string> parts;
    for (std::size_t i = 0; i < std::min<std::size_t>(diagnosis_.holders.size(), 3); ++i) {
      const HolderHere& holder = diagnosis_.holders[i];
      parts.push_back(
          fmt::format("{} holds {} there", job_name_(holder.job),
                      whole_trays() ? count_of(holder.hosts, "tray") : count_of(holder.ranks, "rank")));
    }
    if (const std::size_t more = more_holders(3); more > 0)
      parts.push_back(fmt::format("{} more hold the rest", more));
    for (const AwayHosts& away : diagnosis_.away) parts.push_back(away_text(away));
    const fleet::Domain& domain = inventory_.topology().domain(fleet::DomainId(diagnosis_.domain->id));
    if (diagnosis_.need == 1 && domain.spares > 0)
      parts.push_back(domain.spares == 1 ? "1 spare stays free"
                                         : count_of(domain.spares, "spare") + " stay free");
    if (!parts.empty()) out += ": " + fmt::format("{}", fmt::join(parts, ", "));
    return out;
  }

  std::size_t more_holders(std::size_t named) const {
    return diagnosis_.holders_more +
           (diagnosis_.holders.size() > named ? diagnosis_.holders.size() - named : 0);
  }

  std::string by_amount() const {
    const Capacity need = times(group_.shape.each, diagnosis_.need);
    for (const Dimension& dimension : kDimensions) {
      if (need.*dimension.amount <= diagnosis_.free.*dimension.amount) continue;
      const std::string have = say(dimension, diagnosis_.free);
      std::string out = fmt::format("needs {}{}, {} {} free", say(dimension, need), dimension.unit, have,
                                    have == "1" ? "is" : "are");
      if (inventory_.topology().clusters() > 1 && diagnosis_.cluster)
        out += " in " + name(*diagnosis_.cluster);
      return out + holders_by(dimension) + away_short();
    }
    std::string out =
        group_.ranks == 1
            ? "what is free is split over hosts, none has room for the rank"
            : fmt::format("needs {} ranks; what is free is split over hosts so that they do not all fit",
                          group_.ranks);
    return out + away_short();
  }

  std::string holders_by(const Dimension& dimension) const {
    std::vector<const HolderHere*> named;
    for (const HolderHere& holder : diagnosis_.holders) {
      if (holder.held.*dimension.amount > 0) named.push_back(&holder);
    }
    std::stable_sort(named.begin(), named.end(), [&](const HolderHere* a, const HolderHere* b) {
      return a->held.*dimension.amount > b->held.*dimension.amount;
    });
    std::string out;
    for (std::size_t i = 0; i < std::min<std::size_t>(named.size(), 3); ++i) {
      out += fmt::format("{} {} holds {}", i == 0 ? ";" : ",", job_name_(named[i]->job),
                         say(dimension, named[i]->held));
    }
    const std::size_t more = diagnosis_.holders_more + (named.size() > 3 ? named.size() - 3 : 0);
    return more == 0 ? out : out + fmt::format(", {} more hold the rest", more);
  }

  std::string away_text(const AwayHosts& away) const {
    if (away.hosts == 1)
      return fmt::format("{} is {}", inventory_.topology().name(away.first), away_name(away.away));
    return fmt::format("{} {} are {}", away.hosts,
                       whole_trays() && diagnosis_.segment > 1 ? "trays" : "hosts", away_name(away.away));
  }
  std::string away_by_name() const {
    std::vector<std::string> parts;
    for (const AwayHosts& away : diagnosis_.away) parts.push_back(away_text(away));
    return fmt::format("{}", fmt::join(parts, ", "));
  }
  std::string away_short() const { return diagnosis_.away.empty() ? "" : "; " + away_by_name(); }

  const Diagnosis& diagnosis_;
  const Inventory& inventory_;
  const Request& request_;
  const Group& group_;
  const JobNames& job_name_;
};

std::string instead(const Suggestion& suggestion, const Inventory& inventory, const JobNames& job_name) {
  switch (suggestion.kind) {
    case Suggestion::Kind::kRanks:
      return fmt::format("with {}", count_of(suggestion.value, "rank"));
    case Suggestion::Kind::kSegment:
      return suggestion.value == 1 ? "without segments"
                                   : fmt::format("with segments of {}", suggestion.value);
    case Suggestion::Kind::kAnyGpuModel:
      return "on any GPU model";
    case Suggestion::Kind::kAnyHostClass:
      return "on any host class";
    case Suggestion::Kind::kAnyPlace:
      return "in another cluster";
    case Suggestion::Kind::kLevel: {
      const auto level = static_cast<Level>(suggestion.value);
      return level == Level::kNone ? "spread over clusters"
                                   : fmt::format("if anywhere {} would do", place_name(level));
    }
    case Suggestion::Kind::kStopJob:
      return fmt::format("if {} stopped", job_name(suggestion.value));
    case Suggestion::Kind::kUncordon:
      break;
  }
  std::vector<std::string> names;
  for (const HostId host : suggestion.hosts) names.push_back(inventory.topology().name(host));
  return fmt::format("if {} were uncordoned", fmt::join(names, " and "));
}

// Days since 1970 as year, month, day (Hinnant, "chrono-compatible low-level date algorithms").
std::string date_text(std::int64_t days) {
  days += 719'468;
  const std::int64_t era = (days >= 0 ? days : days - 146'096) / 146'097, day = days - era * 146'097;
  const std::int64_t year = (day - day / 1'460 + day / 36'524 - day / 146'096) / 365;
  const std::int64_t of_year = day - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
  const std::int64_t of_month = of_year - (153 * month + 2) / 5 + 1;
  return fmt::format("{}-{:02}-{:02}", year + era * 400 + (month >= 10 ? 1 : 0),
                     month < 10 ? month + 3 : month - 9, of_month);
}

}  // namespace

std::string_view away_name(Away away) {
  static constexpr std::string_view kNames[] = {
      "not there yet", "suspect",     "lost",
      "cordoned",      "draining",    "failed",
      "in repair",     "quarantined", "in an UltraServer that is out",
      "claimed"};
  return kNames[static_cast<std::size_t>(away)];
}

std::string time_text(std::int64_t ms, std::int64_t now_ms) {
  constexpr std::int64_t kDayMs = 86'400'000;
  const std::int64_t days = ms / kDayMs, seconds = ms % kDayMs / 1'000;
  const std::string clock =
      fmt::format("{:02}:{:02}:{:02} UTC", seconds / 3'600, seconds / 60 % 60, seconds % 60);
  return days == now_ms / kDayMs ? clock : date_text(days) + " " + clock;
}

std::string reason_text(const Diagnosis& diagnosis, const Inventory& inventory, const Request& request,
                        const JobNames& job_name) {
  if (diagnosis.fits) return "there is room for it now";
  const Sentence sentence(diagnosis, inventory, request, job_name);
  return diagnosis.refusal.never() ? sentence.never() : sentence.not_now();
}

std::string text(const Diagnosis& diagnosis, const Inventory& inventory, const Request& request,
                 const JobNames& job_name) {
  std::string out = reason_text(diagnosis, inventory, request, job_name);
  if (diagnosis.starts_ms) {
    out += fmt::format("; expected to start at {} when {} ends",
                       time_text(*diagnosis.starts_ms, diagnosis.now_ms), job_name(diagnosis.starts_after));
    if (!diagnosis.ends_by_stopping) out += " at its time limit";
  }
  for (std::size_t i = 0; i < diagnosis.suggestions.size(); ++i) {
    out += i == 0 ? "; it would start now " : i + 1 == diagnosis.suggestions.size() ? " or " : ", ";
    out += instead(diagnosis.suggestions[i], inventory, job_name);
  }
  return out;
}

}  // namespace capstan::scheduler

// How: fields are read first, each checked by itself; what depends on several is checked when all are there.
#include "workload/spec_parts.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "workload/quantity.h"

namespace capstan::workload {
namespace {

constexpr std::array<std::string_view, 6> kLevels{"host",    "ultraserver", "block",
                                                  "cluster", "region",      "none"};
constexpr std::size_t kPlaceNameLengthMax = 128;

void read_level(Context& context, MappingReader& mapping, std::string_view key, fleet::Level& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr || !is_scalar(context, *value, key)) return;
  if (const auto level = fleet::parse_level(value->scalar)) {
    out = *level;
    return;
  }
  std::string hint;
  const auto near = nearest(value->scalar, kLevels);
  if (near) hint = *near;
  context.add(value->line, value->column,
              near ? fmt::format("unknown level '{}' in '{}'; did you mean '{}'?", value->scalar, key, *near)
                   : fmt::format("unknown level '{}' in '{}'; write {}", value->scalar, key,
                                 fmt::join(kLevels, ", ")),
              hint);
}

// The name of something in the fleet, whose own rules are looser than those of workloads
// ("p6e-gb200.36xlarge").
void read_place(Context& context, MappingReader& mapping, std::string_view key, std::string& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr || !is_scalar(context, *value, key)) return;
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  const std::string& name = value->scalar;
  if (name.empty() || name.size() > kPlaceNameLengthMax || !std::ranges::all_of(name, allowed)) {
    context.add(*value, fmt::format("'{}' must be one name of letters, digits, '.', '_' and '-', not '{}'",
                                    key, name.substr(0, kPlaceNameLengthMax)));
    return;
  }
  out = name;
}

void read_segment(Context& context, MappingReader& placement, const Spec& spec, std::int64_t& out) {
  if (spec.kind != Kind::kJob) {
    constexpr std::string_view kWho[] = {"", "a service places each replica by itself", "a task array places each task by itself",
                                         "a sandbox is placed by itself"};
    placement.refuse("segment", fmt::format("'segment' groups the ranks of a job; {}",
                                            kWho[static_cast<std::size_t>(spec.kind)]));
    return;
  }
  read_integer(context, placement, "segment", {1, kRanksMax}, out);
  if (out > spec.ranks) {
    context.add(*placement.peek("segment"),
                fmt::format("'segment' is {}, but the job has {} {}; write 1 to {}", out, spec.ranks,
                            spec.ranks == 1 ? "rank" : "ranks", spec.ranks));
  }
}

void read_helpers(Context& context, MappingReader& mapping, Spec& spec) {
  const Yaml* value = mapping.take("helpers");
  if (value == nullptr) return;
  HelpersSpec& out = spec.helpers.emplace();
  MappingReader helpers(context, *value, "'helpers'");
  if (value->type == Yaml::Type::kMapping && helpers.peek("ranks") == nullptr)
    context.add(*value, "'helpers.ranks' is missing; write how many, for example 'ranks: 4'");
  read_integer(context, helpers, "ranks", {1, kRanksMax}, out.ranks);
  read_resources(context, helpers, out.resources);
  read_command(context, helpers, out.command);
  helpers.finish();
  if (spec.ranks + out.ranks > kRanksMax) {
    context.add(*value, fmt::format("{} ranks and {} helpers are more than the {} ranks that a job may have",
                                    spec.ranks, out.ranks, kRanksMax));
  }
  if (out.resources.gpus + out.resources.gpu_milli > 0) {
    context.add(*value, "helpers run without GPUs; ranks with GPUs are the job's own 'ranks'");
  }
}

}  // namespace

void read_resources(Context& context, MappingReader& mapping, Resources& out) {
  const Yaml* value = mapping.take("resources");
  if (value == nullptr) return;
  MappingReader resources(context, *value, "'resources'");
  read_quantity(context, resources, "cpus", parse_milli_cpus, out.milli_cpus);
  read_quantity(context, resources, "memory", parse_bytes, out.memory_bytes);
  std::int64_t milli_gpus = 0;
  read_quantity(context, resources, "gpus", parse_milli_gpus, milli_gpus);
  if (milli_gpus > kGpusMax * 1000) {
    context.add(*resources.peek("gpus"),
                fmt::format("'gpus' is {}, but must be between 0 and {}", milli_gpus / 1000, kGpusMax));
  }
  out.gpus = milli_gpus / 1000;
  out.gpu_milli = milli_gpus % 1000;
  resources.finish();
}

void read_placement(Context& context, MappingReader& mapping, Spec& spec) {
  const Yaml* value = mapping.take("placement");
  if (value == nullptr) return;
  PlacementSpec& out = spec.placement;
  MappingReader placement(context, *value, "'placement'");
  read_segment(context, placement, spec, out.segment);
  read_level(context, placement, "required", out.required);
  read_level(context, placement, "preferred", out.preferred);
  read_place(context, placement, "gpu_model", out.gpu_model);
  read_place(context, placement, "host_class", out.host_class);
  read_place(context, placement, "cluster", out.cluster);
  read_place(context, placement, "region", out.region);
  read_place(context, placement, "reservation", out.reservation);
  placement.finish();
  const Yaml* preferred = placement.peek("preferred");
  if (preferred != nullptr && out.required != fleet::Level::kNone && out.preferred > out.required) {
    context.add(*preferred,
                fmt::format("'preferred: {}' is wider than 'required: {}', which holds anyway; leave "
                            "it out, or write a closer level",
                            fleet::level_name(out.preferred), fleet::level_name(out.required)));
  }
}

void read_gang(Context& context, MappingReader& mapping, Spec& spec) {
  if (spec.kind != Kind::kJob) {
    constexpr std::string_view kNumbers[] = {"", "the number of replicas is 'replicas'", "the number of tasks is 'count'",
                                             "each sandbox is a document of its own"};
    const std::string_view elsewhere = kNumbers[static_cast<std::size_t>(spec.kind)];
    mapping.refuse("ranks", fmt::format("only a job has 'ranks'; {}", elsewhere));
    mapping.refuse("ranks_min", fmt::format("only a job has 'ranks_min'; {}", elsewhere));
    mapping.refuse("helpers", fmt::format("only a job has 'helpers'; run them as a {} of their own",
                                          spec.kind == Kind::kService ? "service" : "task array"));
    return;
  }
  read_integer(context, mapping, "ranks", {1, kRanksMax}, spec.ranks);
  read_integer(context, mapping, "ranks_min", {1, kRanksMax}, spec.ranks_min);
  read_helpers(context, mapping, spec);
}

void check_gang(Context& context, const MappingReader& mapping, const Spec& spec) {
  const Yaml* resources = mapping.peek("resources");
  if (spec.resources.gpu_milli > 0 && spec.ranks > 1 && resources != nullptr) {
    const Yaml* at = resources;
    for (const auto& [key, value] : resources->members) {
      if (key.text == "gpus") at = &value;
    }
    context.add(*at,
                fmt::format("{} ranks cannot have a share of a GPU each; ranks of a gang get whole GPUs, and "
                            "a job of one rank, a service or tasks may share one",
                            spec.ranks));
  }
  const Yaml* ranks_min = mapping.peek("ranks_min");
  if (ranks_min == nullptr || spec.ranks_min == 0) return;
  const std::int64_t segment = spec.placement.segment;
  if (spec.ranks_min > spec.ranks) {
    context.add(*ranks_min, fmt::format("'ranks_min' is {}, but the job has {} ranks; write 1 to {}",
                                        spec.ranks_min, spec.ranks, spec.ranks));
  } else if (segment > 0 && spec.ranks_min % segment != 0) {
    const std::int64_t below = spec.ranks_min / segment * segment;
    context.add(*ranks_min,
                fmt::format("'ranks_min' is {}, but must be a multiple of the segment of {}, such as {}",
                            spec.ranks_min, segment, below > 0 ? below : segment));
  }
}

void read_path(Context& context, MappingReader& mapping, std::string_view key, std::string& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr || !is_scalar(context, *value, key)) return;
  out = value->scalar;
  if (out.starts_with('/') || out.starts_with("${CAPSTAN_")) return;
  if (context.base_directory.empty()) {
    context.add(*value, fmt::format("'{}' must be an absolute path here, not '{}'", key, out));
    return;
  }
  while (out.starts_with("./")) out.erase(0, 2);
  if (out == "." || out.empty()) {
    out = context.base_directory;
  } else {
    out = context.base_directory + "/" + out;
  }
}

void read_command(Context& context, MappingReader& mapping, std::vector<std::string>& out) {
  const Yaml* value = mapping.take("command");
  if (value == nullptr) return;
  if (value->type == Yaml::Type::kScalar) {
    out = {"/bin/sh", "-c", value->scalar};
  } else if (value->type == Yaml::Type::kSequence) {
    for (const Yaml& word : value->items) {
      if (word.type != Yaml::Type::kScalar) {
        context.add(word,
                    fmt::format("each word of 'command' must be a single value, not {}", word.type_name()));
      }
      out.push_back(word.scalar);
    }
  }
  const bool empty = out.empty() || (value->type == Yaml::Type::kScalar && trim(value->scalar).empty());
  if (value->type == Yaml::Type::kMapping || empty) {
    context.add(*value, "'command' must be a line for the shell, or a list such as [python3, train.py]");
  }
}

}  // namespace capstan::workload

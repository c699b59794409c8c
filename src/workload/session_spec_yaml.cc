// What only `kind: sandbox` has, read from YAML for spec_yaml.cc.
#include <algorithm>

#include "workload/quantity.h"
#include "workload/spec_parts.h"

namespace capstan::workload {
namespace {

constexpr std::int64_t kMemoryMin = 1 << 20;

void read_timeout(Context& context, MappingReader& mapping, std::int64_t& out) {
  if (const Yaml* value = mapping.peek("timeout"); value != nullptr && value->scalar == "none") {
    mapping.take("timeout");
    out = 0;
    return;
  }
  read_quantity(context, mapping, "timeout", parse_duration_ms, out);
  const Yaml* value = mapping.peek("timeout");
  if (value != nullptr && out == 0)
    context.add(*value, "a 'timeout' of 0 would end the sandbox at once; write for example '8h', or 'none'");
}

// "pypi.org", "*.example.org:8443", an address: what the host's proxy takes is checked there.
void read_network(Context& context, MappingReader& mapping, SessionSpec& out) {
  const Yaml* value = mapping.take("network");
  if (value == nullptr) return;
  MappingReader network(context, *value, "'network'");
  const Yaml* allow = network.take("allow");
  if (allow == nullptr) {
    if (value->type == Yaml::Type::kMapping)
      context.add(*value, "'network.allow' is missing; list hosts, for example 'allow: [pypi.org]', or none: 'allow: []'");
  } else if (allow->type != Yaml::Type::kSequence || allow->items.size() > kAllowedHostsMax) {
    context.add(*allow, fmt::format("'network.allow' must be a list of at most {} hosts, such as "
                                    "[pypi.org, '*.example.org:8443']",
                                    kAllowedHostsMax));
  } else {
    out.allow.emplace();
    for (const Yaml& host : allow->items) {
      if (host.type == Yaml::Type::kScalar && !host.scalar.empty())
        out.allow->push_back(host.scalar);
      else
        context.add(host, "each of 'network.allow' must be a host, such as pypi.org or '*.example.org:8443'");
    }
  }
  network.finish();
}

void read_template(Context& context, MappingReader& mapping, std::string& out) {
  const Yaml* value = mapping.take("template");
  if (value == nullptr || !is_scalar(context, *value, "template")) return;
  out = value->scalar;
  const auto odd = [](char c) {
    return !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.');
  };
  if (out.empty() || out.size() > 128 || std::ranges::any_of(out, odd))
    context.add(*value, fmt::format("'template' must be the name of a template or snapshot (capstan session templates), not '{}'",
                                    out.substr(0, 128)));
}

}  // namespace

void read_session(Context& context, MappingReader& mapping, Spec& spec) {
  mapping.refuse("command", "a sandbox waits for commands: leave 'command' out, then: capstan session exec NAME -- COMMAND");
  mapping.refuse("workdir", "a sandbox has a home of its own, /home/user; leave 'workdir' out");
  mapping.refuse("user", "inside a sandbox everything runs as its own 'user'; leave it out");
  read_template(context, mapping, spec.session.template_name);
  read_timeout(context, mapping, spec.session.timeout_ms);
  read_network(context, mapping, spec.session);
  const Yaml* resources = mapping.peek("resources");
  const Yaml& at = resources != nullptr ? *resources : mapping.node();
  if (spec.resources.gpus + spec.resources.gpu_milli > 0) context.add(at, "sandboxes have no GPUs; leave 'gpus' out");
  if (spec.resources.memory_bytes == 0) spec.resources.memory_bytes = kSessionMemoryDefault;
  if (spec.resources.memory_bytes < kMemoryMin) context.add(at, "a sandbox needs at least 1MiB of 'resources.memory'");
  if (spec.resources.milli_cpus < 10) context.add(at, "a sandbox needs at least 10m of 'resources.cpus'");
}

}  // namespace capstan::workload

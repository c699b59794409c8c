// `sandbox` of a task array, read from YAML for spec_yaml.cc.
#include <algorithm>
#include <array>

#include "workload/quantity.h"
#include "workload/spec_parts.h"

namespace capstan::workload {
namespace {

// A word that is not known is kept, so that nothing more is said of a choice that was not made.
template <std::size_t N>
void read_choice(Context& context, MappingReader& mapping, std::string_view key,
                 const std::array<std::string_view, N>& known, std::string& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr || !is_scalar(context, *value, key)) return;
  out = value->scalar;
  if (std::ranges::find(known, out) != known.end()) return;
  std::string hint;
  const std::string advice = did_you_mean(value->scalar, known, hint);
  context.add(value->line, value->column, fmt::format("unknown '{}' '{}'; {}", key, value->scalar, advice),
              hint);
}

// The source of a program, with its line ends.
void read_code(Context& context, MappingReader& mapping, TaskSandbox& out) {
  const Yaml* value = mapping.take("code");
  if (value == nullptr || !is_scalar(context, *value, "code")) return;
  out.code = value->scalar;
  if (out.code.size() > kCodeBytesMax) {
    context.add(
        *value,
        fmt::format(
            "'code' has {} bytes, but may have {}; put it into a 'template' and run it with 'command'",
            out.code.size(), kCodeBytesMax));
  }
}

void check_lane(Context& context, const MappingReader& document, const Yaml& at, const TaskSandbox& out) {
  const bool process = out.lane == "process";
  const bool command = document.peek("command") != nullptr;
  if (process && !out.code.empty())
    context.add(at, "'sandbox.code' is for the lanes python and node; write 'lane: python', or a 'command'");
  if (!process && out.code.empty())
    context.add(
        at, fmt::format("'sandbox.code' is missing: the lane {} runs source, for example 'code: print(1)'",
                        out.lane));
  if (!process && command)
    context.add(*document.peek("command"),
                fmt::format("the lane {} runs 'sandbox.code'; 'command' is for the lane process", out.lane));
  if (!process && !out.template_root.empty())
    context.add(at,
                fmt::format("the lane {} runs this host's interpreter; a 'template' needs 'lane: process'",
                            out.lane));
  if (out.lane == "node" && out.batch > 1)
    context.add(at, "tasks of the lane node get a sandbox each; 'batch' is for the lanes process and python");
}

}  // namespace

void read_task_sandbox(Context& context, MappingReader& mapping, Spec& spec) {
  const Yaml* value = mapping.take("sandbox");
  if (value == nullptr) return;
  constexpr std::array<std::string_view, 3> kLanes{"process", "python", "node"};
  constexpr std::array<std::string_view, 2> kNetworks{"none", "namespace"};
  TaskSandbox& out = spec.sandbox.emplace();
  MappingReader fields(context, *value, "'sandbox'");
  read_choice(context, fields, "lane", kLanes, out.lane);
  read_choice(context, fields, "network", kNetworks, out.network);
  read_code(context, fields, out);
  read_path(context, fields, "template", out.template_root);
  read_path(context, fields, "input", out.input);
  read_text(context, fields, "collect", out.collect);
  read_integer(context, fields, "batch", {1, kBatchMax}, out.batch);
  out.chunk = out.batch;
  read_integer(context, fields, "chunk", {1, kChunkMax}, out.chunk);
  read_integer(context, fields, "pids", {1, 4096}, out.pids);
  read_quantity(context, fields, "disk", parse_bytes, out.disk_bytes);
  read_integer(context, fields, "files", {1, 1'000'000}, out.files);
  read_quantity(context, fields, "cpu_time", parse_duration_ms, out.cpu_time_ms);
  read_quantity(context, fields, "output", parse_bytes, out.output_bytes);
  fields.finish();
  check_lane(context, mapping, *value, out);
  if (out.chunk % out.batch != 0) {
    context.add(*value, fmt::format("'chunk' is {}, but must be a multiple of 'batch', {}, such as {}",
                                    out.chunk, out.batch, (out.chunk / out.batch + 1) * out.batch));
  }
  if (!out.collect.empty() && !out.collect.starts_with("/work/"))
    context.add(*value, fmt::format("'collect' must be a path below /work, such as /work/out, not '{}'",
                                    out.collect));
  if (out.disk_bytes < 4096) context.add(*value, "'disk' must be at least 4KiB");
  if (out.output_bytes > 16 << 20)
    context.add(*value, "'output' must be at most 16MiB; larger results are files to 'collect'");
  if (spec.resources.gpus + spec.resources.gpu_milli > 0)
    context.add(*value, "sandboxes have no GPUs; leave 'sandbox' out, or 'gpus'");
  if (const Yaml* workdir = mapping.peek("workdir"))
    context.add(*workdir, "a task in a sandbox begins in /work, which is its own; leave 'workdir' out");
  if (spec.resources.memory_bytes == 0) spec.resources.memory_bytes = kSandboxMemoryDefault;
  if (spec.resources.memory_bytes < 1 << 20)
    context.add(*value, "a sandbox needs at least 1MiB of 'resources.memory'");
}

}  // namespace capstan::workload

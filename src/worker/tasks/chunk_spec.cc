#include "worker/tasks/chunk_spec.h"

#include <algorithm>

#include "protocol/messages.h"

namespace capstan::worker {

Result<ArraySpec> ArraySpec::from_json(const Json& json) {
  CAPSTAN_TRY(const protocol::Effect effect, protocol::Effect::from_json(json));
  const auto* start = std::get_if<protocol::StartRank>(&effect.body);
  if (start == nullptr || !start->chunk) return fail(Code::kInvalid, "the effect starts no chunk of tasks");
  const Json& box = start->chunk->sandbox;
  ArraySpec spec;
  spec.job = effect.rank.job;
  spec.token = json.get_string("token").value_or("");
  spec.name = start->name;
  spec.user = start->user;
  spec.tenant = start->tenant;
  spec.command = start->command;
  spec.env = start->env;
  spec.milli_cpus = std::max<std::int64_t>(start->resources.milli_cpus, 10);
  if (start->resources.memory_bytes > 0) spec.memory_bytes = start->resources.memory_bytes;
  spec.timeout_ms = start->timeout_ms > 0 ? start->timeout_ms : kTimeoutMsMax;
  spec.retries = start->chunk->retries;
  spec.backoff_ms = start->chunk->backoff_ms;
  spec.lane = box.get_string("lane").value_or("process");
  spec.code = box.get_string("code").value_or("");
  spec.template_root = box.get_string("template").value_or("");
  spec.network = box.get_string("network").value_or("none");
  spec.input = box.get_string("input").value_or("");
  spec.collect = box.get_string("collect").value_or("");
  spec.batch = std::max<std::int64_t>(box.get_int("batch").value_or(1), 1);
  spec.pids = box.get_int("pids").value_or(spec.pids);
  spec.disk_bytes = box.get_int("disk_bytes").value_or(spec.disk_bytes);
  spec.files = box.get_int("files").value_or(spec.files);
  spec.output_bytes = box.get_int("output_bytes").value_or(spec.output_bytes);
  spec.cpu_time_ms = box.get_int("cpu_time_ms").value_or(0);
  if (spec.cpu_time_ms == 0)
    spec.cpu_time_ms =
        std::max<std::int64_t>(spec.timeout_ms * std::max<std::int64_t>(spec.milli_cpus, 1000) / 1000, 1000);
  return spec;
}

Result<ChunkSpec> ChunkSpec::from_json(const Json& effect) {
  ChunkSpec spec;
  CAPSTAN_TRY(spec.id, RankId::from_json(effect));
  const Json* chunk = effect.find("chunk");
  if (chunk == nullptr) return fail(Code::kInvalid, "the effect has no 'chunk'");
  spec.first = chunk->get_int("first").value_or(-1);
  spec.count = chunk->get_int("count").value_or(0);
  if (spec.first < 0 || spec.count < 1)
    return fail(Code::kInvalid, "chunk {} holds no tasks", spec.id.text());
  return spec;
}

std::string with_index(std::string text, std::int64_t index) {
  constexpr std::string_view kMark = "{index}";
  const std::string number = std::to_string(index);
  for (std::size_t at = 0; (at = text.find(kMark, at)) != text.npos; at += number.size())
    text.replace(at, kMark.size(), number);
  return text;
}

}  // namespace capstan::worker

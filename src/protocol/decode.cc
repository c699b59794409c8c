// How it works: the counterpart of encode.cc; every member is checked before it is used.
#include "protocol/fields.h"
#include "protocol/messages.h"

namespace capstan::protocol {
namespace {

constexpr std::size_t kNameBytesMax = 256;

Result<RankId> rank_id(const Json& json) {
  RankId id;
  CAPSTAN_TRY(id.job, need_int(json, "job", 1));
  CAPSTAN_TRY(id.attempt, need_int(json, "attempt", 1));
  CAPSTAN_TRY(id.rank, need_int(json, "rank", 0));
  return id;
}

Result<RankPhase> phase(const Json& json) {
  CAPSTAN_TRY(const std::string name, need_text(json, "state", kNameBytesMax));
  if (name == "starting") return RankPhase::kStarting;
  if (name == "running") return RankPhase::kRunning;
  if (name == "exited") return RankPhase::kExited;
  return fail(Code::kInvalid, "'state' is '{}', not starting, running or exited", name);
}

Result<std::optional<std::int64_t>> optional_int(const Json& json, std::string_view key) {
  const Json* value = json.find(key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  CAPSTAN_TRY(const std::int64_t number, need_int(json, key, -1, 255));
  return std::optional(number);
}

Result<RankExited> rank_exited(const Json& json) {
  RankExited body;
  CAPSTAN_TRY(body.exit_code, optional_int(json, "exit_code"));
  CAPSTAN_TRY(body.signal, optional_int(json, "signal"));
  CAPSTAN_TRY(body.oom, bool_or(json, "oom", false));
  CAPSTAN_TRY(body.lost, bool_or(json, "lost", false));
  CAPSTAN_TRY(body.stopped, bool_or(json, "stopped", false));
  CAPSTAN_TRY(body.message, text_or(json, "message", ""));
  if (const Json* tally = json.find("tally"); tally != nullptr && !tally->is_null()) {
    CAPSTAN_TRY(body.tally, task_tally_from_json(*tally));
  }
  if (!body.exit_code && !body.signal && !body.lost)
    return fail(Code::kInvalid, "rank_exited needs exit_code, signal or lost");
  return body;
}

Result<StartRank> start_rank(const Json& json) {
  StartRank body;
  CAPSTAN_TRY(body.name, need_text(json, "name", kNameBytesMax));
  CAPSTAN_TRY(body.kind, need_text(json, "kind", kNameBytesMax));
  CAPSTAN_TRY(body.tenant, text_or(json, "tenant", "default", kNameBytesMax));
  CAPSTAN_TRY(body.user, text_or(json, "user", "", kNameBytesMax));
  CAPSTAN_TRY(const Json::Array command, array_or_empty(json, "command", 100'000));
  for (const Json& word : command) {
    if (!word.is_string()) return fail(Code::kInvalid, "'command' must be an array of strings");
    body.command.push_back(word.as_string());
  }
  if (const Json* chunk = json.find("chunk"); chunk != nullptr && !chunk->is_null()) {
    TaskChunk tasks;
    CAPSTAN_TRY(tasks.first, need_int(*chunk, "first"));
    CAPSTAN_TRY(tasks.count, need_int(*chunk, "count", 1, 1'000'000));
    CAPSTAN_TRY(tasks.retries, need_int(*chunk, "retries"));
    CAPSTAN_TRY(tasks.backoff_ms, need_int(*chunk, "backoff_ms"));
    if (const Json* sandbox = chunk->find("sandbox")) tasks.sandbox = *sandbox;
    body.chunk = std::move(tasks);
  }
  if (const Json* session = json.find("session"); session != nullptr && !session->is_null()) {
    if (!session->is_object()) return fail(Code::kInvalid, "'session' must be an object");
    body.session = *session;
  }
  if (body.command.empty() && !body.chunk && !body.session) return fail(Code::kInvalid, "'command' must name a program");
  if (const Json* env = json.find("env"); env != nullptr && env->is_object()) {
    for (const auto& [name, value] : env->members()) {
      if (!value.is_string()) return fail(Code::kInvalid, "'env.{}' must be a string", name);
      body.env.emplace_back(name, value.as_string());
    }
  }
  CAPSTAN_TRY(body.workdir, text_or(json, "workdir", ""));
  const Json* resources = json.find("resources");
  if (resources == nullptr) return fail(Code::kInvalid, "'resources' must be an object, not absent");
  CAPSTAN_TRY(body.resources, capacity_from_json(*resources));
  CAPSTAN_TRY(body.grace_ms, int_or(json, "grace_ms", 30'000));
  CAPSTAN_TRY(body.timeout_ms, int_or(json, "timeout_ms", 0));
  CAPSTAN_TRY(body.port, int_or(json, "port", 0, 0, 65'535));
  if (const Json* health = json.find("health"); health != nullptr && !health->is_null()) {
    HealthProbe probe;
    CAPSTAN_TRY(probe.path, need_text(*health, "path"));
    CAPSTAN_TRY(probe.interval_ms, need_int(*health, "interval_ms", 1));
    CAPSTAN_TRY(probe.timeout_ms, need_int(*health, "timeout_ms", 1));
    CAPSTAN_TRY(probe.start_timeout_ms, need_int(*health, "start_timeout_ms", 1));
    body.health = std::move(probe);
  }
  CAPSTAN_TRY(body.log_bytes_max, int_or(json, "log_bytes_max", body.log_bytes_max, 1));
  return body;
}

}  // namespace

Result<fleet::Capacity> capacity_from_json(const Json& json) {
  fleet::Capacity capacity;
  CAPSTAN_TRY(capacity.milli_cpus, need_int(json, "milli_cpus", 0, std::int64_t{1} << 40));
  CAPSTAN_TRY(capacity.memory_bytes, need_int(json, "memory_bytes", 0, std::int64_t{1} << 56));
  CAPSTAN_TRY(capacity.gpus, int_or(json, "gpus", 0, 0, 1 << 20));
  CAPSTAN_TRY(capacity.gpu_milli, int_or(json, "gpu_milli", 0, 0, 999));
  return capacity;
}

namespace {

using Ranges = std::vector<std::pair<std::int64_t, std::int64_t>>;

Result<Ranges> ranges_from(const Json& json, std::string_view key) {
  CAPSTAN_TRY(const Json::Array list, array_or_empty(json, key, kRanksPerHostMax));
  Ranges ranges;
  for (const Json& item : list) {
    const bool fits = item.is_array() && item.size() == 2 && item.items()[0].is_int() && item.items()[1].is_int() &&
                      item.items()[0].as_int() >= 0 && item.items()[0].as_int() < item.items()[1].as_int();
    if (!fits) return fail(Code::kInvalid, "'{}' must be an array of [begin, end]", key);
    ranges.emplace_back(item.items()[0].as_int(), item.items()[1].as_int());
  }
  return ranges;
}

}  // namespace

Result<std::vector<TaskReport>> task_reports_from_json(const Json& json, std::string_view key) {
  CAPSTAN_TRY(const Json::Array list, array_or_empty(json, key, kReportsPerSyncMax));
  std::vector<TaskReport> reports;
  for (const Json& item : list) {
    TaskReport report;
    CAPSTAN_TRY(report.job, need_int(item, "job", 1));
    CAPSTAN_TRY(report.attempt, need_int(item, "attempt", 1, INT32_MAX));
    CAPSTAN_TRY(report.started, ranges_from(item, "started"));
    CAPSTAN_TRY(report.succeeded, ranges_from(item, "succeeded"));
    reports.push_back(std::move(report));
  }
  return reports;
}

Result<std::vector<Capability>> capabilities_from_json(const Json& json, std::string_view key) {
  CAPSTAN_TRY(const Json::Array list, array_or_empty(json, key, 1'000));
  std::vector<Capability> capabilities;
  for (const Json& item : list) {
    Capability capability;
    CAPSTAN_TRY(capability.name, need_text(item, "name", kNameBytesMax));
    CAPSTAN_TRY(capability.ok, bool_or(item, "ok", false));
    CAPSTAN_TRY(capability.why, text_or(item, "why", ""));
    capabilities.push_back(std::move(capability));
  }
  return capabilities;
}

Result<Report> Report::from_json(const Json& json) {
  Report report;
  CAPSTAN_TRY(report.seq, need_int(json, "seq", 1));
  CAPSTAN_TRY(report.id, rank_id(json));
  CAPSTAN_TRY(const std::string type, need_text(json, "type", kNameBytesMax));
  if (type == "rank_started") {
    RankStarted body;
    CAPSTAN_TRY(body.pid, int_or(json, "pid", 0, -1));
    CAPSTAN_TRY(body.port, int_or(json, "port", 0, 0, 65'535));
    CAPSTAN_TRY(body.session, text_or(json, "session", "", kNameBytesMax));
    report.body = std::move(body);
  } else if (type == "rank_ready") {
    RankReady body;
    CAPSTAN_TRY(body.host, text_or(json, "host", "127.0.0.1", kNameBytesMax));
    CAPSTAN_TRY(body.port, int_or(json, "port", 0, 0, 65'535));
    report.body = std::move(body);
  } else if (type == "rank_unready") {
    RankUnready body;
    CAPSTAN_TRY(body.why, text_or(json, "why", ""));
    report.body = std::move(body);
  } else if (type == "rank_exited") {
    CAPSTAN_TRY(report.body, rank_exited(json));
  } else if (type == "rank_start_failed") {
    RankStartFailed body;
    CAPSTAN_TRY(body.message, text_or(json, "message", ""));
    CAPSTAN_TRY(body.retryable, bool_or(json, "retryable", false));
    report.body = std::move(body);
  } else {
    return fail(Code::kInvalid, "report type '{}' is unknown", type);
  }
  return report;
}

Result<Effect> Effect::from_json(const Json& json) {
  Effect effect;
  CAPSTAN_TRY(effect.id, need_int(json, "id", 0));
  CAPSTAN_TRY(effect.rank, rank_id(json));
  CAPSTAN_TRY(const std::string type, need_text(json, "type", kNameBytesMax));
  if (type == "start_rank") {
    CAPSTAN_TRY(effect.body, start_rank(json));
  } else if (type == "stop_rank") {
    StopRank body;
    CAPSTAN_TRY(body.grace_ms, int_or(json, "grace_ms", 30'000));
    CAPSTAN_TRY(body.why, text_or(json, "why", ""));
    effect.body = std::move(body);
  } else if (type == "forget_rank") {
    effect.body = ForgetRank{};
  } else {
    return fail(Code::kInvalid, "effect type '{}' is unknown", type);
  }
  return effect;
}

Result<SyncRequest> SyncRequest::from_json(const Json& json) {
  if (!json.is_object())
    return fail(Code::kInvalid, "a sync request must be an object, not {}", json.type_name());
  SyncRequest request;
  CAPSTAN_TRY(request.worker, need_text(json, "worker", kNameBytesMax));
  CAPSTAN_TRY(request.incarnation, need_text(json, "incarnation", kNameBytesMax));
  if (request.worker.empty() || request.incarnation.empty())
    return fail(Code::kInvalid, "'worker' and 'incarnation' must not be empty");
  CAPSTAN_TRY(request.build, text_or(json, "build", "", kNameBytesMax));
  CAPSTAN_TRY(request.epoch_seen, int_or(json, "epoch_seen", 0));
  const Json* resources = json.find("resources");
  if (resources == nullptr) return fail(Code::kInvalid, "'resources' must be an object, not absent");
  CAPSTAN_TRY(request.resources, capacity_from_json(*resources));
  CAPSTAN_TRY(request.capabilities, capabilities_from_json(json, "capabilities"));
  CAPSTAN_TRY(request.logs_url, text_or(json, "logs_url", ""));
  if (json.contains("ranks")) {
    CAPSTAN_TRY(const Json::Array list, array_or_empty(json, "ranks", kRanksPerHostMax));
    request.ranks.emplace();
    for (const Json& item : list) {
      RankStatus status;
      CAPSTAN_TRY(status.id, rank_id(item));
      CAPSTAN_TRY(status.phase, phase(item));
      request.ranks->push_back(status);
    }
  }
  CAPSTAN_TRY(request.effects_done, int_or(json, "effects_done", 0));
  CAPSTAN_TRY(const Json::Array reports, array_or_empty(json, "reports", kReportsPerSyncMax));
  for (const Json& item : reports) {
    CAPSTAN_TRY(Report report, Report::from_json(item));
    request.reports.push_back(std::move(report));
  }
  return request;
}

Result<SyncAnswer> SyncAnswer::from_json(const Json& json) {
  SyncAnswer answer;
  CAPSTAN_TRY(answer.epoch, need_int(json, "epoch", 0));
  CAPSTAN_TRY(answer.reports_acked, need_int(json, "reports_acked", 0));
  CAPSTAN_TRY(answer.full, bool_or(json, "full", false));
  CAPSTAN_TRY(const Json::Array effects, array_or_empty(json, "effects", kEffectsPerAnswerMax));
  for (const Json& item : effects) {
    CAPSTAN_TRY(Effect effect, Effect::from_json(item));
    answer.effects.push_back(std::move(effect));
  }
  CAPSTAN_TRY(answer.shutdown, bool_or(json, "shutdown", false));
  return answer;
}

}  // namespace capstan::protocol

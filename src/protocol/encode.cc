// How it works: one function a message; members in the order of docs/formats/worker-wire.md.
#include "protocol/messages.h"

namespace capstan::protocol {
namespace {

std::string_view phase_name(RankPhase phase) {
  switch (phase) {
    case RankPhase::kStarting:
      return "starting";
    case RankPhase::kRunning:
      return "running";
    case RankPhase::kExited:
      return "exited";
  }
  return "exited";
}

Json head(std::string_view number_key, std::int64_t number, std::string_view type, const RankId& id) {
  return Json::object({{std::string(number_key), number},
                       {"type", type},
                       {"job", id.job},
                       {"attempt", id.attempt},
                       {"rank", id.rank}});
}

void put(Json& json, const RankStarted& body) {
  json["pid"] = body.pid;
  if (body.port > 0) json["port"] = body.port;
  if (!body.session.empty()) json["session"] = body.session;
}
void put(Json& json, const RankReady& body) {
  json["host"] = body.host;
  json["port"] = body.port;
}
void put(Json& json, const RankUnready& body) { json["why"] = body.why; }
void put(Json& json, const RankExited& body) {
  if (body.exit_code) json["exit_code"] = *body.exit_code;
  if (body.signal) json["signal"] = *body.signal;
  json["oom"] = body.oom;
  json["lost"] = body.lost;
  json["stopped"] = body.stopped;
  json["message"] = body.message;
  if (body.tally) json["tally"] = to_json(*body.tally);
}
void put(Json& json, const RankStartFailed& body) {
  json["message"] = body.message;
  json["retryable"] = body.retryable;
}
void put(Json& json, const StartRank& body) {
  json["name"] = body.name;
  json["kind"] = body.kind;
  json["tenant"] = body.tenant;
  json["user"] = body.user;
  json["command"] = Json(Json::Array(body.command.begin(), body.command.end()));
  Json env = Json::object();
  for (const auto& [name, value] : body.env) env.members().emplace_back(name, value);
  json["env"] = std::move(env);
  json["workdir"] = body.workdir;
  json["resources"] = to_json(body.resources);
  json["grace_ms"] = body.grace_ms;
  json["timeout_ms"] = body.timeout_ms;
  json["port"] = body.port;
  Json& health = json["health"];
  if (body.health) {
    health = Json::object({{"path", body.health->path},
                           {"interval_ms", body.health->interval_ms},
                           {"timeout_ms", body.health->timeout_ms},
                           {"start_timeout_ms", body.health->start_timeout_ms}});
  }
  json["log_bytes_max"] = body.log_bytes_max;
  if (body.session) json["session"] = *body.session;
  if (!body.chunk) return;
  json["chunk"] = Json::object({{"first", body.chunk->first},
                                {"count", body.chunk->count},
                                {"retries", body.chunk->retries},
                                {"backoff_ms", body.chunk->backoff_ms},
                                {"sandbox", body.chunk->sandbox}});
}
void put(Json& json, const StopRank& body) {
  json["grace_ms"] = body.grace_ms;
  json["why"] = body.why;
}
void put(Json&, const ForgetRank&) {}

constexpr std::string_view kReportTypes[] = {"rank_started", "rank_ready", "rank_unready", "rank_exited",
                                             "rank_start_failed"};
constexpr std::string_view kEffectTypes[] = {"start_rank", "stop_rank", "forget_rank"};

}  // namespace

std::string RankId::text() const { return fmt::format("{}-{}-{}", job, attempt, rank); }

Json to_json(const fleet::Capacity& capacity) {
  Json json = Json::object({{"milli_cpus", capacity.milli_cpus},
                            {"memory_bytes", capacity.memory_bytes},
                            {"gpus", capacity.gpus}});
  if (capacity.gpu_milli > 0) json["gpu_milli"] = capacity.gpu_milli;
  return json;
}

Json to_json(const std::vector<TaskReport>& reports) {
  const auto ranges = [](const std::vector<std::pair<std::int64_t, std::int64_t>>& all) {
    Json list = Json::array();
    for (const auto& [begin, end] : all) list.push_back(Json::array({begin, end}));
    return list;
  };
  Json list = Json::array();
  for (const TaskReport& report : reports) {
    Json json = Json::object({{"job", report.job}, {"attempt", report.attempt}});
    if (!report.started.empty()) json["started"] = ranges(report.started);
    if (!report.succeeded.empty()) json["succeeded"] = ranges(report.succeeded);
    list.push_back(std::move(json));
  }
  return list;
}

Json to_json(const std::vector<Capability>& capabilities) {
  Json list = Json::array();
  for (const Capability& capability : capabilities) {
    list.push_back(Json::object({{"name", capability.name}, {"ok", capability.ok}, {"why", capability.why}}));
  }
  return list;
}

Json Report::to_json() const {
  Json json = head("seq", seq, kReportTypes[body.index()], id);
  std::visit([&](const auto& what) { put(json, what); }, body);
  return json;
}

Json Effect::to_json() const {
  Json json = head("id", id, kEffectTypes[body.index()], rank);
  std::visit([&](const auto& what) { put(json, what); }, body);
  return json;
}

Json SyncRequest::to_json() const {
  Json json = Json::object({{"worker", worker},
                            {"incarnation", incarnation},
                            {"build", build},
                            {"epoch_seen", epoch_seen},
                            {"resources", protocol::to_json(resources)},
                            {"capabilities", protocol::to_json(capabilities)},
                            {"logs_url", logs_url}});
  if (ranks) {
    Json list = Json::array();
    for (const RankStatus& rank : *ranks) {
      list.push_back(Json::object({{"job", rank.id.job},
                                   {"attempt", rank.id.attempt},
                                   {"rank", rank.id.rank},
                                   {"state", phase_name(rank.phase)}}));
    }
    json["ranks"] = std::move(list);
  }
  json["effects_done"] = effects_done;
  Json list = Json::array();
  for (const Report& report : reports) list.push_back(report.to_json());
  json["reports"] = std::move(list);
  return json;
}

Json SyncAnswer::to_json() const {
  Json list = Json::array();
  for (const Effect& effect : effects) list.push_back(effect.to_json());
  return Json::object({{"epoch", epoch},
                       {"reports_acked", reports_acked},
                       {"full", full},
                       {"effects", std::move(list)},
                       {"shutdown", shutdown}});
}

}  // namespace capstan::protocol

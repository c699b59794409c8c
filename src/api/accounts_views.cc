#include "api/accounts_views.h"

#include <string.h>

#include "base/text.h"

namespace capstan::api {
namespace {

Json list(const std::vector<std::string>& items) {
  Json out = Json::array();
  for (const std::string& item : items) out.push_back(item);
  return out;
}

Json time_or_null(std::int64_t ms) { return ms == 0 ? Json() : Json(ms); }

template <std::size_t N>
std::string text_of(const std::array<char, N>& field) {
  return std::string(field.data(), ::strnlen(field.data(), N));
}

}  // namespace

Json view(const store::Organisation& organisation) {
  return Json::object({{"name", organisation.name}, {"created_ms", organisation.created_ms}});
}

Json view(const store::Tenants& tenants, const store::Project& project) {
  return Json::object({{"project", tenants.project_path(project.id)},
                       {"weight", project.weight},
                       {"created_ms", project.created_ms}});
}

Json view(const store::Tenants& tenants, const store::Key& key) {
  Json out = Json::object({{"key", tenants.project_path(key.project) + "/" + key.name},
                           {"prefix", key.prefix},
                           {"role", store::name_of(key.role)},
                           {"scopes", Json::array()},
                           {"models", list(key.models)},
                           {"tier", store::name_of(key.tier)},
                           {"created_ms", key.created_ms},
                           {"expires_ms", time_or_null(key.expires_ms)}});
  const std::string scopes = store::names_of_scopes(key.scopes);
  for (const std::string_view scope : split(scopes, ',')) out["scopes"].push_back(scope);
  if (!key.access_key_id.empty()) out["access_key_id"] = key.access_key_id;
  return out;
}

Json view(const store::Tenants& tenants, const store::LimitRule& rule, std::pair<std::int64_t, std::int64_t> state) {
  return Json::object({{"id", rule.id},
                       {"subject", tenants.subject_path(rule.subject, rule.subject_id)},
                       {"model", rule.model.empty() ? Json() : Json(rule.model)},
                       {"window", store::name_of(rule.window)},
                       {"unit", store::name_of(rule.unit)},
                       {"amount", rule.amount},
                       {"used", state.first},
                       {"reserved", state.second}});
}

Json view(const store::Tenants& tenants, const store::Catalogue& catalogue, store::UsageBy by,
          const store::UsageLine& line) {
  Json out = Json::object();
  switch (by) {
    case store::UsageBy::kModel: out["model"] = catalogue.name_of(line.group); break;
    case store::UsageBy::kProject: out["project"] = tenants.project_path(line.group); break;
    case store::UsageBy::kKey: out["key"] = tenants.key_path(line.group); break;
    case store::UsageBy::kDay: out["day_ms"] = line.group; break;
  }
  out["requests"] = line.sum.requests;
  out["input_tokens"] = line.sum.input_tokens;
  out["cached_tokens"] = line.sum.cached_tokens;
  out["output_tokens"] = line.sum.output_tokens;
  out["reasoning_tokens"] = line.sum.reasoning_tokens;
  out["nano_dollars"] = line.sum.nano_dollars;
  return out;
}

Json view(const store::Tenants& tenants, store::ComputeBy by, const store::ComputeLine& line) {
  Json out = Json::object({{"kind", line.kind}});
  if (by == store::ComputeBy::kProject) out["project"] = tenants.project_path(line.group);
  if (by == store::ComputeBy::kKey) out["key"] = tenants.key_path(line.group);
  if (by == store::ComputeBy::kDay) out["day_ms"] = line.group;
  out["runs"] = line.sum.runs;
  out["wall_ms"] = line.sum.wall_ms;
  out["cpu_us"] = line.sum.cpu_us;
  out["memory_mib_ms"] = line.sum.memory_mib_ms;
  out["memory_peak_bytes"] = line.sum.memory_peak_bytes;
  out["bytes_in"] = line.sum.bytes_in;
  out["bytes_out"] = line.sum.bytes_out;
  return out;
}

Json view(const store::Tenants& tenants, const store::Catalogue& catalogue, const store::UsageRecord& record) {
  return Json::object({{"time_ms", record.time_ms()},
                       {"request_id", text_of(record.request_id)},
                       {"path", text_of(record.path)},
                       {"key", tenants.key_path(record.key)},
                       {"project", tenants.project_path(record.project)},
                       {"model", catalogue.name_of(record.model)},
                       {"tier", store::name_of(record.tier)},
                       {"status", int{record.status}},
                       {"exact", record.exact},
                       {"prompt_tokens", record.prompt_tokens},
                       {"cached_tokens", record.cached_tokens},
                       {"completion_tokens", record.completion_tokens},
                       {"reasoning_tokens", record.reasoning_tokens},
                       {"nano_dollars", record.nano_dollars},
                       {"queued_ms", int{record.queued_ms}},
                       {"first_byte_ms", int{record.first_byte_ms}},
                       {"total_ms", int{record.total_ms}}});
}

Json view(const store::Model& model) {
  return Json::object({{"name", model.name},
                       {"source", model.source},
                       {"format", model.format},
                       {"context_length", model.context_length},
                       {"modalities", list(model.modalities)},
                       {"licence", model.licence},
                       {"price_input", model.price.input},
                       {"price_cached", model.price.cached},
                       {"price_output", model.price.output},
                       {"has_key", !model.upstream_key.empty()},
                       {"requests_per_replica", model.requests_per_replica},
                       {"card", model.card},
                       {"created_ms", model.created_ms}});
}

Json view(const store::Alias& alias) {
  Json targets = Json::array();
  for (const auto& target : alias.targets)
    targets.push_back(Json::object({{"model", target.model}, {"weight", target.weight}}));
  return Json::object({{"name", alias.name}, {"targets", std::move(targets)}});
}

Json view(const store::AuditLine& line) {
  return Json::object({{"id", line.id},
                       {"time_ms", line.time_ms},
                       {"actor", line.actor},
                       {"action", line.action},
                       {"object", line.object},
                       {"detail", line.detail}});
}

}  // namespace capstan::api

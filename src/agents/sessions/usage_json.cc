// How it works: one list of members, used in both directions.
#include "agents/sessions/usage_json.h"

#include <utility>

namespace capstan::agents {
namespace {

using Sum = store::ComputeSum;
constexpr std::pair<const char*, std::int64_t Sum::*> kSums[] = {
    {"runs", &Sum::runs},
    {"wall_ms", &Sum::wall_ms},
    {"cpu_us", &Sum::cpu_us},
    {"memory_mib_ms", &Sum::memory_mib_ms},
    {"memory_peak_bytes", &Sum::memory_peak_bytes},
    {"bytes_in", &Sum::bytes_in},
    {"bytes_out", &Sum::bytes_out}};
using Record = store::ComputeRecord;
constexpr std::pair<const char*, std::int64_t Record::*> kNumbers[] = {{"time_ms", &Record::time_ms},
                                                                       {"key", &Record::key},
                                                                       {"project", &Record::project},
                                                                       {"organisation", &Record::organisation}};
constexpr std::pair<const char*, std::string Record::*> kTexts[] = {
    {"id", &Record::id}, {"kind", &Record::kind}, {"name", &Record::name}};

}  // namespace

Json to_json(const store::ComputeRecord& record) {
  Json out = Json::object();
  for (const auto& [name, member] : kTexts) out[name] = record.*member;
  for (const auto& [name, member] : kNumbers) out[name] = record.*member;
  for (const auto& [name, member] : kSums) out[name] = record.sum.*member;
  return out;
}

Result<store::ComputeRecord> compute_record_of(const Json& json) {
  store::ComputeRecord out;
  for (const auto& [name, member] : kTexts) out.*member = json.get_string(name).value_or("");
  if (out.id.empty()) return fail(Code::kCorrupt, "a record of usage without an id");
  const auto take = [&](const char* name, std::int64_t& into) -> Result<void> {
    const auto value = json.get_int(name);
    if (!value) return fail(Code::kCorrupt, "the record of usage {} has no '{}'", out.id, name);
    into = *value;
    return {};
  };
  for (const auto& [name, member] : kNumbers) CAPSTAN_CHECK(take(name, out.*member));
  for (const auto& [name, member] : kSums) CAPSTAN_CHECK(take(name, out.sum.*member));
  return out;
}

}  // namespace capstan::agents

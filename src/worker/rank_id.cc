#include "worker/rank_id.h"

#include "base/text.h"

namespace capstan::worker {

std::string RankId::text() const { return fmt::format("{}-{}-{}", job, attempt, rank); }

std::optional<RankId> RankId::parse(std::string_view text) {
  const auto parts = split(text, '-');
  if (parts.size() != 3) return std::nullopt;
  const auto job = parse_int(parts[0]), attempt = parse_int(parts[1]), rank = parse_int(parts[2]);
  if (!job || !attempt || !rank) return std::nullopt;
  const RankId id{*job, *attempt, *rank};
  if (id.text() != text) return std::nullopt;  // one spelling per id
  return id;
}

Result<RankId> RankId::from_json(const Json& json) {
  const auto job = json.get_int("job"), attempt = json.get_int("attempt"), rank = json.get_int("rank");
  if (!job || !attempt || !rank || *job < 0 || *attempt < 0 || *rank < 0) {
    return fail(Code::kInvalid, "job, attempt and rank must be integers of at least 0");
  }
  return RankId{*job, *attempt, *rank};
}

Json RankId::with_state(std::string_view state) const {
  return Json::object({{"job", job}, {"attempt", attempt}, {"rank", rank}, {"state", state}});
}

}  // namespace capstan::worker

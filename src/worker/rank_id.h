// RankId: which process of which attempt of which job; "7-1-0" on disk. An id is used for one start, ever.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace capstan::worker {

struct RankId {
  std::int64_t job = 0;
  std::int64_t attempt = 0;
  std::int64_t rank = 0;

  std::string text() const;  // "JOB-ATTEMPT-RANK"
  static std::optional<RankId> parse(std::string_view text);
  // From an effect's or report's members "job", "attempt", "rank".
  static Result<RankId> from_json(const Json& json);
  Json with_state(std::string_view state) const;  // these and "state", as a full sync lists it
  friend auto operator<=>(const RankId&, const RankId&) = default;
};

}  // namespace capstan::worker

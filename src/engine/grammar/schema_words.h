// What joining schemas needs of keywords and lists. Private to this folder.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "engine/grammar/schema_values.h"

namespace capstan::engine {

// Joins beyond this many are refused.
inline constexpr int kMergesMax = 20'000;

inline std::unexpected<Error> cannot(std::string_view keyword, std::string message) {
  return std::unexpected(Error{Code::kInvalid, std::move(message), "/" + std::string(keyword)});
}

inline Json as_list(const Json& value) { return value.is_array() ? value : Json::array({value}); }

inline bool contains(const Json& list, const Json& value) {
  return std::ranges::any_of(list.items(), [&](const Json& item) { return same_value(item, value); });
}

template <std::size_t n>
bool is_among(const std::array<std::string_view, n>& words, std::string_view word) {
  return std::ranges::find(words, word) != words.end();
}

// Constants of both.
inline void intersect_constants(Json& into, const Json& list) {
  Json kept = Json::array();
  for (const Json& item : into.items())
    if (contains(list, item)) kept.push_back(item);
  into = std::move(kept);
}

}  // namespace capstan::engine

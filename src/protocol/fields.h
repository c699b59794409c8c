// Members of a JSON object that must be there, with their types and bounds: what decoders of the wire and the
// journal are made of.
//
//   CAPSTAN_TRY(const std::int64_t job, need_int(json, "job", 1));
//
// Failure: kInvalid; message and Error::field name the member.  Threads: pure functions.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace capstan::protocol {

inline constexpr std::int64_t kIntMax = std::numeric_limits<std::int64_t>::max();
inline constexpr std::size_t kTextBytesMax = 1u << 20;

Result<std::int64_t> need_int(const Json& json, std::string_view key, std::int64_t min = 0,
                              std::int64_t max = kIntMax);
// `otherwise` if the member is absent or null.
Result<std::int64_t> int_or(const Json& json, std::string_view key, std::int64_t otherwise,
                            std::int64_t min = 0, std::int64_t max = kIntMax);
Result<std::string> need_text(const Json& json, std::string_view key, std::size_t bytes_max = kTextBytesMax);
Result<std::string> text_or(const Json& json, std::string_view key, std::string_view otherwise,
                            std::size_t bytes_max = kTextBytesMax);
Result<bool> bool_or(const Json& json, std::string_view key, bool otherwise);
// The member as an array of at most `items_max`; an absent one is the empty array.
Result<Json::Array> array_or_empty(const Json& json, std::string_view key, std::size_t items_max);

}  // namespace capstan::protocol

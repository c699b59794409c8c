// What a sandbox session that the scheduler places is made of: the part of `kind: sandbox` that no other kind has.
//
// To the scheduler a sandbox is a gang of one rank; its host's session host makes the session (docs/sessions.md).
// YAML form: docs/workloads.md. Threads: values, pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace capstan::workload {

inline constexpr std::int64_t kSessionTimeoutDefaultMs = 8LL * 3600 * 1000;
inline constexpr std::int64_t kSessionMemoryDefault = 512 << 20;
inline constexpr std::size_t kAllowedHostsMax = 256;

struct SessionSpec {
  std::string template_name = "base";
  std::int64_t timeout_ms = kSessionTimeoutDefaultMs;  // of each start; 0: none, until it is cancelled
  // Hosts that it may reach, within what its template permits; absent: what the template allows; empty: none.
  std::optional<std::vector<std::string>> allow;
  friend bool operator==(const SessionSpec&, const SessionSpec&) = default;
};

// Members that have their default may be left out; reading takes both. kCorrupt names what has the wrong type.
Json to_json(const SessionSpec& session, bool all);
Result<SessionSpec> session_spec_from_json(const Json& json);

}  // namespace capstan::workload

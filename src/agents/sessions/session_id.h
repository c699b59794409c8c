// The names of sessions: 20 random hexadecimal digits; of one that the scheduler placed "w7x" before them, where 7 is the
// number of its workload, so that whoever knows all hosts can tell where it is.
//
// Pure but for make_session_id (the system's random numbers).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace capstan::agents {

// `workload` 0: not placed.
std::string make_session_id(std::int64_t workload = 0);
std::optional<std::int64_t> workload_of(std::string_view id);  // of a placed session's id
// Whether it is, by its form, a session that was made through the API: never that of a placed one. May be a workload's name, too.
bool is_unplaced_id(std::string_view id);

}  // namespace capstan::agents

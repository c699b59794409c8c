// Paths as a session's clients say them, and where the files lie.
//
//   CAPSTAN_TRY(std::string inside, path_inside("data/../a.txt"));   // "/work/a.txt"
//   shown_path(inside);                                              // "/home/user/a.txt"
//
// A relative path, and "~", begin at the user's home, /home/user, which is another name of /work. Threads: pure.
// Failure: kInvalid for what is no path (empty, a zero byte, too long).
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace capstan::agents {

inline constexpr std::string_view kHome = "/home/user";
inline constexpr std::size_t kPathBytesMax = 4'000;

Result<std::string> path_inside(std::string_view given);
std::string shown_path(std::string_view inside);

}  // namespace capstan::agents

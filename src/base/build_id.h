// The build that is running: the linker's build id (SHA-1 of the program), so that two builds never share a
// name.
#pragma once

#include <string>

namespace capstan {

inline constexpr const char* kVersion = "0.1.0";

// Lower-case hexadecimal, 12 characters; "unknown" if the program was linked without one. Cost: reads once.
const std::string& build_id();

}  // namespace capstan

// kernel.py, as the build found it (embed.cmake).
#pragma once

#include <string_view>

namespace capstan::agents {
extern const std::string_view kKernelSource;
}  // namespace capstan::agents

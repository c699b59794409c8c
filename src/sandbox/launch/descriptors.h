// The descriptors of a process that was forked from one with many.
#pragma once

#include <vector>

namespace capstan::sandbox {

// Moves these to 3, 4, …, close-on-exec, and closes everything above them. Threads: one.
void keep_descriptors(std::vector<int*>& kept);

}  // namespace capstan::sandbox

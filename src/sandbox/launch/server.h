// The launcher's life: one process, one thread, one user (the peer of its socket). It makes sandboxes,
// watches their limits in time, and clears away what they leave. When its user goes, everything it made goes
// first.
//
// Bounds: kBoxesMax sandboxes at once, kCommandsPerBoxMax commands in each.
#pragma once

namespace capstan::sandbox {

inline constexpr int kBoxesMax = 4096;
inline constexpr int kCommandsPerBoxMax = 256;

// Serves until the peer of `socket` is gone and nothing is left; the exit status.
int serve(int socket);

}  // namespace capstan::sandbox

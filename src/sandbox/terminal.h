// A terminal for a command: pass `inner` as its stdin_fd, stdout_fd and stderr_fd with CommandSpec::terminal;
// read and write `outer`.
//
// It lies on the host's devpts, so the program finds a terminal but not its name. Injecting input into it
// (TIOCSTI) is refused inside. Threads: any.
#pragma once

#include "base/result.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {

struct Terminal {
  Fd outer, inner;
};
Result<Terminal> open_terminal(int rows, int columns);
Result<void> resize_terminal(int outer, int rows, int columns);

}  // namespace capstan::sandbox

#include "sandbox/terminal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace capstan::sandbox {

Result<Terminal> open_terminal(int rows, int columns) {
  Terminal terminal;
  terminal.outer.reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal.outer || ::unlockpt(terminal.outer.get()) != 0)
    return fail_errno("cannot make a terminal", errno);
  // By descriptor, not by name: /dev/pts may be another one than where the terminal was made.
  terminal.inner.reset(::ioctl(terminal.outer.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal.inner) return fail_errno("cannot open a terminal", errno);
  CAPSTAN_CHECK(resize_terminal(terminal.outer.get(), rows, columns));
  return terminal;
}

Result<void> resize_terminal(int outer, int rows, int columns) {
  const winsize size{static_cast<unsigned short>(rows), static_cast<unsigned short>(columns), 0, 0};
  if (::ioctl(outer, TIOCSWINSZ, &size) != 0) return fail_errno("cannot resize a terminal", errno);
  return {};
}

}  // namespace capstan::sandbox

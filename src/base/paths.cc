#include "base/paths.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>

namespace capstan {

std::filesystem::path default_data_directory() {
  namespace fs = std::filesystem;
  if (::geteuid() == 0) return "/var/lib/capstan";
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state == '/')
    return fs::path(state) / "capstan";
  const char* home = std::getenv("HOME");
  const passwd* entry = home == nullptr ? ::getpwuid(::geteuid()) : nullptr;
  const fs::path base = home != nullptr ? home : entry != nullptr ? entry->pw_dir : "/tmp";
  return base / ".local/state/capstan";
}

}  // namespace capstan

#include "base/paths.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>

namespace capstan {

namespace {

namespace fs = std::filesystem;

fs::path of_user(const char* variable, const char* in_home) {
  if (const char* base = std::getenv(variable); base != nullptr && *base == '/')
    return fs::path(base) / "capstan";
  const char* home = std::getenv("HOME");
  const passwd* entry = home == nullptr ? ::getpwuid(::geteuid()) : nullptr;
  const fs::path base = home != nullptr ? home : entry != nullptr ? entry->pw_dir : "/tmp";
  return base / in_home / "capstan";
}

}  // namespace

fs::path default_data_directory() {
  return ::geteuid() == 0 ? "/var/lib/capstan" : of_user("XDG_STATE_HOME", ".local/state");
}

fs::path default_cache_directory() {
  return ::geteuid() == 0 ? "/var/cache/capstan" : of_user("XDG_CACHE_HOME", ".cache");
}

}  // namespace capstan

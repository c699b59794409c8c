#include "apps/journal_command.h"

#include <cstdio>

#include "controller/driver_load.h"

namespace capstan::apps {

int verify_journal_file(const std::string& path) {
  const auto verified = controller::verify_journal(path);
  if (!verified) {
    fmt::print(stderr, "capstan: {}: {}\n", path, verified.error().message);
    return 1;
  }
  fmt::print("{}\n", verified->to_json().dump());
  return 0;
}

}  // namespace capstan::apps

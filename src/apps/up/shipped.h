// Where Capstan's own programs, models and examples lie.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace capstan::apps {

struct Shipped {
  std::filesystem::path bin;    // capstan, capstan-shim, capstan-engine, capstan-train
  std::filesystem::path share;  // holds models/ and examples/
};

// The running program's folder, and $CAPSTAN_SHARE, or share/ beside that folder, or the source tree it was
// built from.
Result<Shipped> find_shipped();

}  // namespace capstan::apps

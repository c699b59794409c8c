#include "apps/up/shipped.h"

#include <cstdlib>

namespace capstan::apps {

Result<Shipped> find_shipped() {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return fail(Code::kIo, "cannot find the running program: {}", error.message());
  const fs::path bin = program.parent_path();
  const char* share = std::getenv("CAPSTAN_SHARE");
  for (const fs::path& candidate :
       {fs::path(share != nullptr ? share : ""), bin / "../share/capstan", fs::path(CAPSTAN_SOURCE_DIR)}) {
    if (candidate.empty() || !fs::is_directory(candidate / "models", error)) continue;
    return Shipped{bin, fs::canonical(candidate, error)};
  }
  return fail(Code::kNotFound,
              "no folder with Capstan's models for {}; set CAPSTAN_SHARE to the folder that holds models/",
              program.string());
}

}  // namespace capstan::apps

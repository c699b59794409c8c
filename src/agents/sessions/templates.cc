#include "agents/sessions/templates.h"

#include "agents/sessions/session.h"

namespace capstan::agents {
namespace {

sandbox::BoxLimits default_limits() {
  return {.memory_bytes = 512 << 20,
          .milli_cpus = 1000,
          .pids = 256,
          .tmpfs_bytes = 256 << 20,
          .tmpfs_inodes = 65'536,
          .open_files = 1024};
}

}  // namespace

Result<Template> Templates::find(const std::string& name, const Owner&) const {
  if (name == "base" || name == "code-interpreter-v1") return Template{.name = name, .limits = default_limits()};
  return fail(Code::kNotFound, "there is no template '{}'; `base` always exists", name);
}

Result<void> Templates::restore(const Template&, Session&) const { return {}; }

}  // namespace capstan::agents

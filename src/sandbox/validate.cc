#include "sandbox/validate.h"

#include <cstdint>
#include <string>

#include "base/text.h"

namespace capstan::sandbox {
namespace {

bool is_plain_path(const std::string& path) {
  if (path.empty() || path[0] != '/' || path.size() > 4000) return false;
  for (const auto part : split(std::string_view(path).substr(1), '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

Result<void> check_limit(const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return {};
  return fail(Code::kInvalid, "{} is {}; it must be between {} and {}", name, value, low, high);
}

}  // namespace

Result<void> validate(const SandboxSpec& spec) {
  const BoxLimits& limits = spec.limits;
  constexpr std::int64_t kMany = std::int64_t{1} << 50;
  CAPSTAN_CHECK(check_limit("memory_bytes", limits.memory_bytes, 1 << 20, kMany));
  CAPSTAN_CHECK(check_limit("milli_cpus", limits.milli_cpus, 10, 10'000'000));
  CAPSTAN_CHECK(check_limit("pids", limits.pids, 1, 4'000'000));
  CAPSTAN_CHECK(check_limit("tmpfs_bytes", limits.tmpfs_bytes, 4096, kMany));
  CAPSTAN_CHECK(check_limit("tmpfs_inodes", limits.tmpfs_inodes, 1, kMany));
  CAPSTAN_CHECK(check_limit("open_files", limits.open_files, 8, 1 << 20));
  if (spec.hostname.empty() || spec.hostname.size() > 64)
    return fail(Code::kInvalid, "the host name must have 1 to 64 characters");
  if (spec.binds.size() > 32)
    return fail(Code::kInvalid, "{} binds; at most 32 are possible", spec.binds.size());
  if (spec.lane == Lane::kPythonZygote && !spec.template_root.empty()) {
    return fail(Code::kInvalid,
                "the python-zygote lane runs this host's Python; a template needs the process lane");
  }
  if (spec.uid == 0) return fail(Code::kInvalid, "uid 0 is not for sandboxes; 1000 is usual");
  if (spec.listen_port != 0 && spec.network != Network::kNamespace)
    return fail(Code::kInvalid, "listen_port {} needs a network namespace", spec.listen_port);
  for (const Bind& bind : spec.binds) {
    if (!is_plain_path(bind.path) || (!bind.path.starts_with("/work/") && !bind.path.starts_with("/mnt/"))) {
      return fail(Code::kInvalid, "bind path '{}' is not an absolute path below /work or /mnt", bind.path);
    }
    if (bind.writable && spec.host_uid == 0) {
      return fail(Code::kInvalid, "the writable bind {} needs host_uid: the user who owns what is written",
                  bind.path);
    }
  }
  return {};
}

Result<void> validate(const CommandSpec& command) {
  constexpr std::int64_t kYearMs = 366LL * 24 * 3600 * 1000;
  CAPSTAN_CHECK(check_limit("wall_ms", command.limits.wall_ms, 1, kYearMs));
  CAPSTAN_CHECK(check_limit("cpu_ms", command.limits.cpu_ms, 1, kYearMs));
  CAPSTAN_CHECK(check_limit("output_bytes", command.limits.output_bytes, 0, 1 << 30));
  CAPSTAN_CHECK(check_limit("output_bytes_max", command.limits.output_bytes_max, command.limits.output_bytes,
                            std::int64_t{1} << 50));
  if (command.code.find('\0') != std::string::npos) return fail(Code::kInvalid, "the code holds a zero byte");
  if (command.argv.empty() && command.code.empty())
    return fail(Code::kInvalid, "a command needs a program (argv)");
  if (command.cwd.empty() || command.cwd[0] != '/')
    return fail(Code::kInvalid, "cwd '{}' is not an absolute path", command.cwd);
  return {};
}

}  // namespace capstan::sandbox

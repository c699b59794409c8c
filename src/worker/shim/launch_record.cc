// How it works: a flat list of NUL-terminated "key=value" fields needs no parser library and cannot be
// ambiguous, because neither argv nor environment strings may hold a NUL. "end" closes the record, so a cut
// one is noticed.
#include "worker/shim/launch_record.h"

#include <charconv>

namespace capstan::shim {
namespace {

void put(std::string& out, std::string_view key, std::string_view value) {
  out.append(key).append("=").append(value).push_back('\0');
}

bool to_int(std::string_view text, std::int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

// One field; false if the key is unknown or its number is malformed.
bool take(LaunchRecord& record, std::string_view key, std::string_view value) {
  if (key == "arg") return record.command.emplace_back(value), true;
  if (key == "env") return record.environment.emplace_back(value), true;
  if (key == "cgroup") return record.cgroups.emplace_back(value), true;
  if (key == "workdir") return record.workdir = value, true;
  if (key == "log_name") return record.log_name = value, true;
  if (key == "log_bytes_max") return to_int(value, record.log_bytes_max);
  if (key == "grace_ms") return to_int(value, record.grace_ms);
  if (key == "timeout_ms") return to_int(value, record.timeout_ms);
  if (key == "open_files_max") return to_int(value, record.open_files_max);
  if (key == "uid") return to_int(value, record.uid);
  if (key == "gid") return to_int(value, record.gid);
  if (key == "group") {
    std::int64_t group = 0;
    if (!to_int(value, group) || group < 0 || group > 0xFFFFFFFE) return false;
    return record.groups.push_back(static_cast<std::uint32_t>(group)), true;
  }
  return false;
}

}  // namespace

std::string encode(const LaunchRecord& record) {
  std::string out;
  for (const auto& argument : record.command) put(out, "arg", argument);
  for (const auto& variable : record.environment) put(out, "env", variable);
  for (const auto& cgroup : record.cgroups) put(out, "cgroup", cgroup);
  put(out, "workdir", record.workdir);
  put(out, "log_name", record.log_name);
  put(out, "log_bytes_max", std::to_string(record.log_bytes_max));
  put(out, "grace_ms", std::to_string(record.grace_ms));
  put(out, "timeout_ms", std::to_string(record.timeout_ms));
  put(out, "open_files_max", std::to_string(record.open_files_max));
  put(out, "uid", std::to_string(record.uid));
  put(out, "gid", std::to_string(record.gid));
  for (const std::uint32_t group : record.groups) put(out, "group", std::to_string(group));
  put(out, "end", "");
  return out;
}

bool decode(std::string_view bytes, LaunchRecord& record, std::string& why) {
  record = {};
  while (!bytes.empty()) {
    const std::size_t length = bytes.find('\0');
    if (length == bytes.npos) break;
    const std::string_view field = bytes.substr(0, length);
    bytes.remove_prefix(length + 1);
    const std::size_t equals = field.find('=');
    if (equals == field.npos) return why = "a field without '='", false;
    const std::string_view key = field.substr(0, equals);
    if (key == "end") {
      if (record.command.empty()) return why = "no command", false;
      if (record.workdir.empty() || record.log_name.empty()) return why = "no workdir or log_name", false;
      return true;
    }
    if (!take(record, key, field.substr(equals + 1))) return why = "bad field " + std::string(key), false;
  }
  return why = "the record is cut short", false;
}

}  // namespace capstan::shim

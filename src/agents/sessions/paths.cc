#include "agents/sessions/paths.h"

#include <vector>

#include "base/text.h"

namespace capstan::agents {
namespace {

constexpr std::string_view kWork = "/work";

// `path` with `from` at its beginning replaced, if it is that directory or lies below it.
std::string moved(const std::string& path, std::string_view from, std::string_view to) {
  if (!path.starts_with(from) || (path.size() > from.size() && path[from.size()] != '/')) return path;
  return std::string(to) + path.substr(from.size());
}

}  // namespace

Result<std::string> path_inside(std::string_view given) {
  if (given.empty()) return fail(Code::kInvalid, "the path is empty");
  if (given.size() > kPathBytesMax) return fail(Code::kInvalid, "the path has more than {} bytes", kPathBytesMax);
  if (given.find('\0') != given.npos) return fail(Code::kInvalid, "the path holds a zero byte");
  std::string whole(given);
  if (given == "~" || given.starts_with("~/"))
    whole = std::string(kHome) + whole.substr(1);
  else if (given[0] != '/')
    whole = std::string(kHome) + "/" + whole;
  std::vector<std::string_view> parts;
  for (const std::string_view part : split(whole, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
    } else {
      parts.push_back(part);
    }
  }
  std::string path;
  for (const std::string_view part : parts) path += "/" + std::string(part);
  if (path.empty()) return std::string("/");
  return moved(moved(path, kHome, kWork), "/var/tmp", "/tmp");
}

std::string shown_path(std::string_view inside) { return moved(std::string(inside), kWork, kHome); }

}  // namespace capstan::agents

#include "agents/sessions/session_id.h"

#include <algorithm>

#include "base/file.h"
#include "base/text.h"

namespace capstan::agents {
namespace {

constexpr int kBytes = 10;

}  // namespace

std::string make_session_id(std::int64_t workload) {
  return workload > 0 ? fmt::format("w{}x{}", workload, random_hex(kBytes)) : random_hex(kBytes);
}

std::optional<std::int64_t> workload_of(std::string_view id) {
  const std::size_t x = id.find('x');
  if (!id.starts_with('w') || x == id.npos || !is_unplaced_id(id.substr(x + 1))) return std::nullopt;
  const auto number = parse_int(id.substr(1, x - 1));
  return number && *number > 0 ? number : std::nullopt;
}

bool is_unplaced_id(std::string_view id) {
  return id.size() == 2 * kBytes && id.find_first_not_of("0123456789abcdef") == id.npos;
}

}  // namespace capstan::agents

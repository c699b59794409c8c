// How it works: /proc/self/smaps names the regions, how much of each is in use, and how much is huge already.
#include "journal/huge_pages.h"

#include <sys/mman.h>

#include <charconv>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1; older C libraries do not name it
#endif

namespace capstan::journal {
namespace {

constexpr std::uint64_t kHuge = 2u << 20;
constexpr std::uint64_t kRegionMin = 16u << 20;  // stacks have 8 MiB

struct Region {
  std::uint64_t begin = 0, end = 0;
  std::uint64_t used = 0, huge = 0;  // bytes
  bool heap = false;                 // private, writable memory without a file
  bool worth_it() const {
    const std::uint64_t size = end - begin;
    return heap && size >= kRegionMin && used >= size / 4 * 3 && huge < used / 10 * 9;
  }
};

// "55d0c0000000-55d0d0000000 rw-p 00000000 00:00 0   [heap]"
bool parse_head(std::string_view line, Region& region) {
  const char* const end = line.data() + line.size();
  const auto first = std::from_chars(line.data(), end, region.begin, 16);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '-') return false;
  const auto second = std::from_chars(first.ptr + 1, end, region.end, 16);
  if (second.ec != std::errc() || second.ptr == end || *second.ptr != ' ') return false;
  const std::string_view rest(second.ptr, static_cast<std::size_t>(end - second.ptr));
  region.heap = rest.starts_with(" rw-p ") && rest.find('/') == rest.npos &&
                (rest.find('[') == rest.npos || rest.ends_with("[heap]"));
  return true;
}

// "Rss:              123456 kB"
void parse_field(std::string_view line, std::string_view name, std::uint64_t& bytes) {
  if (!line.starts_with(name)) return;
  line.remove_prefix(std::min(line.find_first_of("0123456789"), line.size()));
  std::uint64_t kilobytes = 0;
  if (std::from_chars(line.data(), line.data() + line.size(), kilobytes).ec == std::errc())
    bytes = kilobytes * 1024;
}

std::vector<Region> regions() {
  std::vector<Region> found;
  std::ifstream smaps("/proc/self/smaps");
  for (std::string line; std::getline(smaps, line);) {
    Region region;
    if (parse_head(line, region)) {
      found.push_back(region);
    } else if (!found.empty()) {
      parse_field(line, "Rss:", found.back().used);
      parse_field(line, "AnonHugePages:", found.back().huge);
    }
  }
  return found;
}

}  // namespace

std::int64_t gather_huge_pages() {
  std::int64_t gathered = 0;
  for (const Region& region : regions()) {
    if (!region.worth_it()) continue;
    const std::uint64_t first = (region.begin + kHuge - 1) / kHuge * kHuge;
    for (std::uint64_t at = first; at + kHuge <= region.end; at += kHuge) {
      // The owner may have given it back meanwhile: then this fails, and nothing is lost.
      if (::madvise(reinterpret_cast<void*>(at), kHuge, MADV_COLLAPSE) == 0) gathered += kHuge;
    }
  }
  return gathered;
}

}  // namespace capstan::journal

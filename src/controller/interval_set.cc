// How it works: a map from begin to end. insert swallows what it touches; erase splits what it cuts.
#include "controller/interval_set.h"

#include <algorithm>

#include "base/assert.h"

namespace capstan::controller {

void IntervalSet::insert(std::int64_t begin, std::int64_t end) {
  if (begin >= end) return;
  auto at = ranges_.upper_bound(begin);
  if (at != ranges_.begin() && std::prev(at)->second >= begin) --at;
  while (at != ranges_.end() && at->first <= end) {
    begin = std::min(begin, at->first);
    end = std::max(end, at->second);
    size_ -= at->second - at->first;
    at = ranges_.erase(at);
  }
  ranges_.emplace(begin, end);
  size_ += end - begin;
}

void IntervalSet::erase(std::int64_t begin, std::int64_t end) {
  if (begin >= end) return;
  auto at = ranges_.upper_bound(begin);
  if (at != ranges_.begin() && std::prev(at)->second > begin) --at;
  while (at != ranges_.end() && at->first < end) {
    const auto [first, last] = *at;
    at = ranges_.erase(at);
    size_ -= last - first;
    if (first < begin) {
      ranges_.emplace(first, begin);
      size_ += begin - first;
    }
    if (last > end) {
      ranges_.emplace(end, last);
      size_ += last - end;
    }
  }
}

bool IntervalSet::contains(std::int64_t value) const {
  auto at = ranges_.upper_bound(value);
  return at != ranges_.begin() && std::prev(at)->second > value;
}

std::vector<Range> IntervalSet::first(std::int64_t count) const {
  std::vector<Range> out;
  for (const auto& [begin, end] : ranges_) {
    if (count <= 0) break;
    const std::int64_t taken = std::min(count, end - begin);
    out.push_back({begin, begin + taken});
    count -= taken;
  }
  return out;
}

Json ranges_to_json(const std::vector<Range>& ranges) {
  Json out = Json::array();
  for (const Range& range : ranges) out.push_back(Json::array({range.begin, range.end}));
  return out;
}

Result<std::vector<Range>> ranges_from_json(const Json& json) {
  if (!json.is_array()) return fail(Code::kCorrupt, "ranges must be an array");
  std::vector<Range> ranges;
  for (const Json& pair : json.items()) {
    if (!pair.is_array() || pair.size() != 2 || !pair.items()[0].is_int() || !pair.items()[1].is_int()) {
      return fail(Code::kCorrupt, "a range must be [begin, end]");
    }
    ranges.push_back({pair.items()[0].as_int(), pair.items()[1].as_int()});
    if (ranges.back().begin < 0 || ranges.back().begin >= ranges.back().end)
      return fail(Code::kCorrupt, "a range must not be empty");
  }
  return ranges;
}

}  // namespace capstan::controller

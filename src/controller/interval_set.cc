// How it works: a sorted list of sorted blocks, and the end of each block for the search. insert swallows what it touches;
// erase splits what it cuts. A map had a node for each range, and a miss of the cache for each step to it.
#include "controller/interval_set.h"

#include <algorithm>

#include "base/assert.h"

namespace capstan::controller {

IntervalSet::Place IntervalSet::find(std::int64_t value) const {
  const auto block = std::upper_bound(ends_.begin(), ends_.end(), value);
  if (block == ends_.end()) return {blocks_.size(), 0};
  const auto& ranges = blocks_[static_cast<std::size_t>(block - ends_.begin())];
  const auto at = std::upper_bound(ranges.begin(), ranges.end(), value,
                                   [](std::int64_t wanted, const Range& range) { return wanted < range.end; });
  return {static_cast<std::size_t>(block - ends_.begin()), static_cast<std::size_t>(at - ranges.begin())};
}

// Before what is at the place now; a block that is full is cut in two.
void IntervalSet::put(Place place, const Range& range) {
  if (blocks_.empty()) {
    blocks_.emplace_back();
    ends_.push_back(range.end);
  }
  if (place.block == blocks_.size()) place = {blocks_.size() - 1, blocks_.back().size()};
  auto& ranges = blocks_[place.block];
  ranges.insert(ranges.begin() + static_cast<std::ptrdiff_t>(place.at), range);
  if (ranges.size() > kRangesPerBlock) {
    // What grows at its end keeps full blocks behind it.
    const bool at_end = place.block + 1 == blocks_.size() && place.at + 1 == ranges.size();
    const auto middle = at_end ? ranges.end() - 1 : ranges.begin() + static_cast<std::ptrdiff_t>(ranges.size() / 2);
    std::vector<Range> upper(middle, ranges.end());
    ranges.erase(middle, ranges.end());
    ends_.insert(ends_.begin() + static_cast<std::ptrdiff_t>(place.block) + 1, upper.back().end);
    ends_[place.block] = ranges.back().end;
    blocks_.insert(blocks_.begin() + static_cast<std::ptrdiff_t>(place.block) + 1, std::move(upper));
  } else {
    ends_[place.block] = ranges.back().end;
  }
}

void IntervalSet::remove(Place place) {
  auto& ranges = blocks_[place.block];
  ranges.erase(ranges.begin() + static_cast<std::ptrdiff_t>(place.at));
  if (!ranges.empty()) {
    ends_[place.block] = ranges.back().end;
    return;
  }
  blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(place.block));
  ends_.erase(ends_.begin() + static_cast<std::ptrdiff_t>(place.block));
}

void IntervalSet::set(Place place, const Range& range) {
  blocks_[place.block][place.at] = range;
  ends_[place.block] = blocks_[place.block].back().end;
}

void IntervalSet::insert(std::int64_t begin, std::int64_t end) {
  if (begin >= end) return;
  Range merged{begin, end};
  Place place = find(begin - 1);  // one that only touches is swallowed as well
  while (place.block < blocks_.size()) {
    const Range range = blocks_[place.block][place.at];
    if (range.begin > merged.end) break;
    size_ -= range.end - range.begin;
    merged = {std::min(range.begin, merged.begin), std::max(range.end, merged.end)};
    const Place next = find(range.end);
    if (next.block == blocks_.size() || blocks_[next.block][next.at].begin > merged.end) {
      set(place, merged);
      size_ += merged.end - merged.begin;
      return;
    }
    remove(place);
    place = find(begin - 1);
  }
  put(place, merged);
  size_ += merged.end - merged.begin;
}

void IntervalSet::erase(std::int64_t begin, std::int64_t end) {
  if (begin >= end) return;
  for (Place place = find(begin); place.block < blocks_.size(); place = find(begin)) {
    const Range range = blocks_[place.block][place.at];
    if (range.begin >= end) return;
    size_ -= std::min(range.end, end) - std::max(range.begin, begin);
    const Range before{range.begin, begin}, after{end, range.end};
    if (range.begin >= begin && range.end <= end) {
      remove(place);
    } else if (range.begin >= begin) {
      set(place, after);
    } else {
      set(place, before);
      if (range.end > end) put({place.block, place.at + 1}, after);
    }
  }
}

bool IntervalSet::contains(std::int64_t value) const {
  const Place place = find(value);
  return place.block < blocks_.size() && blocks_[place.block][place.at].begin <= value;
}

std::vector<Range> IntervalSet::first(std::int64_t count) const {
  std::vector<Range> out;
  for (const auto& ranges : blocks_) {
    for (const Range& range : ranges) {
      if (count <= 0) return out;
      const std::int64_t taken = std::min(count, range.end - range.begin);
      out.push_back({range.begin, range.begin + taken});
      count -= taken;
    }
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

// IntervalSet: a set of integers kept as disjoint half-open ranges, so that a million tasks cost a few bytes.
//
//   set.insert(0, 1'000'000); set.erase(7, 8);   // {[0,7), [8,1000000)}
//   for (Range range : set.first(100)) …
//
// Ranges lie in sorted blocks of at most kRangesPerBlock. Cost: O(log ranges) to find a place, one block to change it, plus
// the ranges that are merged or removed; 16 bytes a range and up to as many spare.  Threads: one owner.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace capstan::controller {

struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // not included
  friend bool operator==(const Range&, const Range&) = default;
};

inline constexpr std::size_t kRangesPerBlock = 128;

class IntervalSet {
 public:
  void insert(std::int64_t begin, std::int64_t end);
  void erase(std::int64_t begin, std::int64_t end);
  bool contains(std::int64_t value) const;
  bool empty() const { return size_ == 0; }
  std::int64_t size() const { return size_; }
  // The ranges that hold the `count` smallest values (fewer if there are fewer).
  std::vector<Range> first(std::int64_t count) const;
  std::vector<Range> ranges() const { return first(size_); }
  friend bool operator==(const IntervalSet& a, const IntervalSet& b) {
    return a.size_ == b.size_ && a.ranges() == b.ranges();
  }

 private:
  struct Place {
    std::size_t block = 0;
    std::size_t at = 0;
  };
  // The first range that ends after `value`; past the last block if there is none.
  Place find(std::int64_t value) const;
  void put(Place place, const Range& range);
  void remove(Place place);
  void set(Place place, const Range& range);

  std::vector<std::vector<Range>> blocks_;  // none empty; ranges neither overlap nor touch
  std::vector<std::int64_t> ends_;          // of the last range of each block
  std::int64_t size_ = 0;
};

// [[begin, end], …]
Json ranges_to_json(const std::vector<Range>& ranges);
Result<std::vector<Range>> ranges_from_json(const Json& json);

}  // namespace capstan::controller

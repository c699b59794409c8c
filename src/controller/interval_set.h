// IntervalSet: a set of integers kept as disjoint half-open ranges, so that a million tasks cost a few bytes.
//
//   set.insert(0, 1'000'000); set.erase(7, 8);   // {[0,7), [8,1000000)}
//   for (Range range : set.first(100)) …
//
// Cost: O(log ranges) an operation, plus the ranges that it merges or removes.  Threads: one owner.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace capstan::controller {

struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // not included
  friend bool operator==(const Range&, const Range&) = default;
};

class IntervalSet {
 public:
  void insert(std::int64_t begin, std::int64_t end);
  void erase(std::int64_t begin, std::int64_t end);
  bool contains(std::int64_t value) const;
  bool empty() const { return ranges_.empty(); }
  std::int64_t size() const { return size_; }
  // The ranges that hold the `count` smallest values (fewer if there are fewer).
  std::vector<Range> first(std::int64_t count) const;
  std::vector<Range> ranges() const { return first(size_); }
  friend bool operator==(const IntervalSet&, const IntervalSet&) = default;

 private:
  std::map<std::int64_t, std::int64_t> ranges_;  // begin -> end
  std::int64_t size_ = 0;
};

// [[begin, end], …]
Json ranges_to_json(const std::vector<Range>& ranges);
Result<std::vector<Range>> ranges_from_json(const Json& json);

}  // namespace capstan::controller

// How it works: jobs are numbered as they come, so a new entry nearly always goes to the end; ended ones are left as gaps
// until they are half of all.
#include "scheduler/running.h"

#include <algorithm>

namespace capstan::scheduler {
namespace {

bool before(const RunningJobs::Entry& entry, std::int64_t job) { return entry.job < job; }

}  // namespace

Running& RunningJobs::operator[](std::int64_t job) {
  const auto [at, is_new] = rows_.try_emplace(job);
  if (!is_new) return at->second;
  if (entries_.empty() || entries_.back().job < job) {
    entries_.push_back({job, &at->second});
    return at->second;
  }
  const auto place = std::lower_bound(entries_.begin(), entries_.end(), job, before);
  if (place->job == job) {  // it ran before
    place->row = &at->second;
    --ended_;
  } else if (place != entries_.begin() && std::prev(place)->row == nullptr) {
    *std::prev(place) = {job, &at->second};
    --ended_;
  } else {
    entries_.insert(place, {job, &at->second});
  }
  return at->second;
}

void RunningJobs::erase(Map::iterator at) {
  std::lower_bound(entries_.begin(), entries_.end(), at->first, before)->row = nullptr;
  rows_.erase(at);
  if (++ended_ * 2 > entries_.size() && ended_ > 64) list();
}

void RunningJobs::list() {
  entries_.clear();
  entries_.reserve(rows_.size() + rows_.size() / 2);
  for (const auto& [job, row] : rows_) entries_.push_back({job, &row});
  ended_ = 0;
}

}  // namespace capstan::scheduler

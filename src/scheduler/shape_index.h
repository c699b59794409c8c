// ShapeIndex: for one shape of rank, how many of them every NVLink domain takes, kept current lazily.
//
// Domains are filed by fit (domain_fit.h: domain_key), so the best-fitting one is found without a look at the others;
// for gangs of several segments the segments that each spine block and cluster takes are summed as well.
// A domain that changed is looked at again when the shape is next asked about, once however often it changed.
// Memory: 3 bytes a domain and shape, plus 520 bytes for every 4,096 domains of equal fit.  Cost: refresh is
// O(changed domains), lookups O(log domains).  Threads: one owner (the Placer).
#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <vector>

#include "scheduler/domain_bitmap.h"
#include "scheduler/domain_fit.h"

namespace capstan::scheduler {

// Ranges of consecutive domains, ascending.
using Extents = std::vector<fleet::Block::Extent>;

class ShapeIndex {
 public:
  // Segments of one size that fit, by block and cluster.
  struct Sums {
    std::int64_t segment = 1;
    std::int64_t used_last = 0;
    std::vector<std::int64_t> blocks;
    std::vector<std::int64_t> clusters;
    std::vector<std::set<std::pair<std::int64_t, fleet::BlockId>>> ordered;  // of each cluster: blocks with room
  };

  ShapeIndex(const Inventory& inventory, Shape shape);

  const Shape& shape() const { return shape_; }
  const ClassMask& mask() const { return mask_; }
  // A domain has changed (or is new).
  void mark(std::uint32_t domain) { dirty_.push_back(domain); }
  std::vector<std::uint32_t> refresh(const Inventory& inventory);  // gives back what was marked

  std::int64_t fit(std::uint32_t domain) const { return domain < fits_.size() ? fits_[domain] : 0; }
  // At most kSumsMax segment sizes are kept; the least recently asked goes.
  const Sums& sums(const Inventory& inventory, std::int64_t segment);

  // The first domain in best-fit order, inside the extents, that takes at least `need`; kNone if none does.
  std::uint32_t best(const Extents& extents, std::int64_t need) const;
  // Visits domains with room for `need` in best-fit order (or emptiest first) until visit returns false.
  template <class Visit>
  void visit(const Extents& extents, std::int64_t need, bool emptiest_first, Visit visit) const {
    const int first = emptiest_first ? 1 : fit_key(need);
    for (int step = 0; step < kKeys; ++step) {
      // Emptiest first: keys kKeyCpu-1 down to 1, then domains with GPUs for shapes without, as in best fit.
      const int key = step >= kKeyCpu ? step : emptiest_first ? kKeyCpu - 1 - step : step;
      if ((key < first && key < kKeyCpu) || counts_[static_cast<std::size_t>(key)] == 0) continue;
      for (const auto& extent : extents) {
        const std::uint32_t end = index(extent.first) + extent.count;
        for (std::uint32_t at = by_key_[static_cast<std::size_t>(key)].next(index(extent.first)); at < end;
             at = by_key_[static_cast<std::size_t>(key)].next(at + 1)) {
          if (fits_[at] >= need && !visit(at)) return;
        }
      }
    }
  }

  std::int64_t used_last = 0;  // the Placer's count of calls, to forget the least used

 private:
  static constexpr std::size_t kSumsMax = 6;
  void set(const Inventory& inventory, std::uint32_t domain, std::int64_t fit);
  void add(const Inventory& inventory, Sums& sums, std::uint32_t domain, std::int64_t before, std::int64_t after);

  Shape shape_;
  ClassMask mask_;
  std::vector<std::uint16_t> fits_;
  std::vector<std::uint8_t> keys_;
  std::array<DomainBitmap, kKeys> by_key_;
  std::array<std::uint32_t, kKeys> counts_{};
  std::vector<Sums> sums_;
  std::vector<std::uint32_t> dirty_;
  std::int64_t calls_ = 0;
};

}  // namespace capstan::scheduler

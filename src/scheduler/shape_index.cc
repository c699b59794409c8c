// How it works: `set` moves one domain from its old file to its new one and carries the difference into every sum.
#include "scheduler/shape_index.h"

#include <algorithm>

namespace capstan::scheduler {

ShapeIndex::ShapeIndex(const Inventory& inventory, Shape shape)
    : shape_(std::move(shape)), mask_(inventory.topology(), shape_) {
  for (std::uint32_t domain = 0; domain < inventory.topology().domains(); ++domain) dirty_.push_back(domain);
}

std::vector<std::uint32_t> ShapeIndex::refresh(const Inventory& inventory) {
  if (dirty_.empty()) return {};
  mask_.extend(inventory.topology());
  const std::size_t domains = inventory.topology().domains();
  if (fits_.size() < domains) {
    fits_.resize(domains);
    keys_.resize(domains);
  }
  for (const std::uint32_t domain : dirty_)
    set(inventory, domain, domain_fit(inventory, DomainId(domain), shape_, mask_, {}));
  return std::exchange(dirty_, {});
}

void ShapeIndex::set(const Inventory& inventory, std::uint32_t domain, std::int64_t fit) {
  const std::int64_t before = fits_[domain];
  const int key_before = keys_[domain];
  const int key = domain_key(inventory, DomainId(domain), shape_, fit);
  if (key != key_before) {
    if (key_before > 0) {
      by_key_[static_cast<std::size_t>(key_before)].erase(domain);
      --counts_[static_cast<std::size_t>(key_before)];
    }
    if (key > 0) {
      by_key_[static_cast<std::size_t>(key)].insert(domain);
      ++counts_[static_cast<std::size_t>(key)];
    }
    keys_[domain] = static_cast<std::uint8_t>(key);
  }
  fits_[domain] = static_cast<std::uint16_t>(fit);
  if (before == fit) return;
  for (Sums& sums : sums_) add(inventory, sums, domain, before, fit);
}

void ShapeIndex::add(const Inventory& inventory, Sums& sums, std::uint32_t domain, std::int64_t before,
                     std::int64_t after) {
  const std::int64_t change = after / sums.segment - before / sums.segment;
  if (change == 0) return;
  const auto& topology = inventory.topology();
  const fleet::BlockId block = topology.domain(DomainId(domain)).block;
  const std::uint32_t cluster = index(topology.block(block).cluster);
  if (sums.blocks.size() < topology.blocks()) sums.blocks.resize(topology.blocks());
  if (sums.clusters.size() < topology.clusters()) {
    sums.clusters.resize(topology.clusters());
    sums.ordered.resize(topology.clusters());
  }
  std::int64_t& sum = sums.blocks[index(block)];
  if (sum > 0) sums.ordered[cluster].erase({sum, block});
  sum += change;
  if (sum > 0) sums.ordered[cluster].insert({sum, block});
  sums.clusters[cluster] += change;
}

const ShapeIndex::Sums& ShapeIndex::sums(const Inventory& inventory, std::int64_t segment) {
  ++calls_;
  for (Sums& sums : sums_) {
    if (sums.segment != segment) continue;
    sums.used_last = calls_;
    return sums;
  }
  if (sums_.size() >= kSumsMax) {
    sums_.erase(std::min_element(sums_.begin(), sums_.end(),
                                 [](const Sums& a, const Sums& b) { return a.used_last < b.used_last; }));
  }
  Sums sums;
  sums.segment = segment;
  sums.used_last = calls_;
  const auto& topology = inventory.topology();
  sums.blocks.resize(topology.blocks());
  sums.clusters.resize(topology.clusters());
  sums.ordered.resize(topology.clusters());
  for (std::uint32_t domain = 0; domain < fits_.size(); ++domain)
    sums.blocks[index(topology.domain(DomainId(domain)).block)] += fits_[domain] / segment;
  for (std::uint32_t block = 0; block < topology.blocks(); ++block) {
    const fleet::BlockId id{block};
    if (sums.blocks[block] == 0) continue;
    sums.clusters[index(topology.block(id).cluster)] += sums.blocks[block];
    sums.ordered[index(topology.block(id).cluster)].insert({sums.blocks[block], id});
  }
  sums_.push_back(std::move(sums));
  return sums_.back();
}

std::uint32_t ShapeIndex::best(const Extents& extents, std::int64_t need) const {
  std::uint32_t found = DomainBitmap::kNone;
  visit(extents, need, false, [&](std::uint32_t domain) {
    found = domain;
    return false;
  });
  return found;
}

}  // namespace capstan::scheduler

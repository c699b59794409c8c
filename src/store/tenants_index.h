// Everything that Tenants holds in memory. Private to store/.
#pragma once

#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "base/sha256.h"
#include "store/tenants.h"

namespace capstan::store {

struct Tenants::Index {
  struct ByHash {
    Digest hash{};
    KeyPtr key;
  };
  struct Signing {
    KeyPtr key;
    std::string sealed;
  };
  // The first eight bytes of a digest: as good as random, so they serve as a hash.
  static std::uint64_t slot_of(const Digest& hash) {
    std::uint64_t slot = 0;
    std::memcpy(&slot, hash.data(), sizeof slot);
    return slot;
  }

  std::mutex changing;              // one change at a time: checked, made durable, then applied
  mutable std::shared_mutex mutex;  // of what follows
  std::map<std::int64_t, Organisation> organisations;
  std::map<std::int64_t, Project> projects;
  std::map<std::int64_t, KeyPtr> keys;
  std::map<std::int64_t, LimitRule> limits;
  std::unordered_map<std::uint64_t, ByHash> by_hash;
  std::unordered_map<std::string, Signing> by_access_key;

  void put(const KeyPtr& key, const Digest& hash, const std::string& sealed) {
    keys[key->id] = key;
    by_hash[slot_of(hash)] = {hash, key};
    if (!key->access_key_id.empty()) by_access_key[key->access_key_id] = {key, sealed};
  }
  template <class Map>
  static std::int64_t next_id(const Map& map) {
    return map.empty() ? 1 : map.rbegin()->first + 1;
  }
  const Organisation* organisation(std::string_view name) const {
    for (const auto& [id, one] : organisations) {
      if (one.removed_ms == 0 && one.name == name) return &one;
    }
    return nullptr;
  }
  const Project* project(std::int64_t organisation, std::string_view name) const {
    for (const auto& [id, one] : projects) {
      if (one.removed_ms == 0 && one.organisation == organisation && one.name == name) return &one;
    }
    return nullptr;
  }
};

}  // namespace capstan::store

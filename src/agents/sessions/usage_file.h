// What sessions used and nobody has settled yet, in a file: what a session host that is killed leaves to the next one.
//
//   UsageFile file(directory / "usage.json");
//   auto records = file.load();  …  file.save(records);      // now and then
//
// Replaced as a whole and synced; a save without a change writes nothing. What is in the file may have been settled meanwhile: a
// record's id makes it count once. Threads: one at a time.  Failure: is logged; the next save tries again.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "store/compute_usage.h"

namespace capstan::agents {

class UsageFile {
 public:
  explicit UsageFile(std::filesystem::path path) : path_(std::move(path)) {}
  // None if there is no file; one that cannot be read is set aside as `….damaged`.
  std::vector<store::ComputeRecord> load() const;
  void save(std::span<const store::ComputeRecord> records);

 private:
  const std::filesystem::path path_;
  std::string saved_ = {};
};

}  // namespace capstan::agents

// DataSource: an endless stream of training samples, each a pure function of its index.
//
// The trainer's whole position in the data is one number, the index of the next sample. Because sample i
// depends on nothing but (the source's options, i), a resumed run sees exactly what an undisturbed run would
// have seen, whatever the number of ranks, and no rank ever reads another's samples.
//
//   class Counting : public DataSource {
//     Sample sample(std::uint64_t) const override { return {.tokens = {1, 2}, .is_target = {0, 1}}; }
//     std::int32_t vocabulary_size() const override { return 3; }
//   };
//
// Threads: const members may be called from several threads at once.  Cost: a sample should cost
// microseconds; every rank draws every sample of a step to know its length, and keeps its own share.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace capstan::trainer {

// One document. tokens.size() == is_target.size() >= 2. Token i is predicted from tokens 0..i-1, and counts
// in loss and accuracy where is_target[i] is 1; is_target[0] is ignored (nothing comes before it).
struct Sample {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> is_target;
};

class DataSource {
 public:
  virtual ~DataSource() = default;

  // A pure function of the source's options and `index`; never empty, never longer than the source's own
  // bound.
  virtual Sample sample(std::uint64_t index) const = 0;

  // Samples that the stream above never gives, for evaluation; nullptr if the source holds none back.
  virtual std::unique_ptr<DataSource> held_out() const { return nullptr; }

  // Ids are below this; the trainer refuses a model whose vocabulary is smaller.
  virtual std::int32_t vocabulary_size() const = 0;

  // Writes tokenizer.json (and what else a reader of the exported model needs: generation_config.json, chat
  // template) into `directory`, which exists. The default writes nothing.
  virtual Result<void> write_tokenizer(const std::filesystem::path& directory) const {
    (void)directory;
    return {};
  }
};

// The `data:` section of a configuration, as every kind of source sees it.
struct DataConfig {
  std::string kind;  // "abacus", "jsonl"
  std::uint64_t seed = 1;
  std::filesystem::path path;      // jsonl: the file
  std::int64_t tokens_max = 2048;  // jsonl: the longest sample
  std::int64_t held_out = 0;       // jsonl: so many samples at the end are for evaluation
  std::vector<std::pair<std::string, double>> mixture;  // abacus: kind of problem, weight; empty: its default
};

// What makes a source of one kind. The mains register the kinds they know.
using MakeDataSource = std::function<Result<std::unique_ptr<DataSource>>(const DataConfig&)>;

}  // namespace capstan::trainer

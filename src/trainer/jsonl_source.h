// JsonlSource: training samples from a file with one JSON object a line.
//
//   {"tokens": [12, 7, 9], "targets": [0, 1, 1]}   ids, and which of them count (all but the first if absent)
//   {"text": "Ahoy"}                               its UTF-8 bytes are the ids; every byte after the first
//   counts
//
// Empty lines are skipped. A text longer than `tokens_max` is cut into pieces of that length; a token list
// longer than that is refused. The stream shows every sample once per epoch, each epoch in its own order,
// which is a keyed permutation: sample(i) needs no state. The last `held_out` samples of the file are not in
// the stream; held_out() gives them in file order. Failure: kNotFound, kIo; kInvalid with "FILE:LINE: what is
// wrong". Threads: const members from any.  Cost: the whole file is held in memory (bound: kJsonlBytesMax).
#pragma once

#include "trainer/data.h"

namespace capstan::trainer {

inline constexpr std::uint64_t kJsonlBytesMax = std::uint64_t{2} << 30;
inline constexpr std::int32_t kTokenIdMax = 1 << 20;

class JsonlSource : public DataSource {
 public:
  static Result<std::unique_ptr<DataSource>> open(const DataConfig& config);

  Sample sample(std::uint64_t index) const override;
  std::unique_ptr<DataSource> held_out() const override;
  std::int32_t vocabulary_size() const override { return vocabulary_size_; }

 private:
  JsonlSource() = default;

  std::vector<Sample> samples_;
  std::vector<Sample> held_out_;
  bool in_file_order_ = false;
  std::uint64_t seed_ = 0;
  std::int32_t vocabulary_size_ = 0;
};

// The image of `position` under a permutation of [0, count) that `key` chooses. Pure; a few hash rounds.
std::uint64_t permuted(std::uint64_t position, std::uint64_t count, std::uint64_t key);

}  // namespace capstan::trainer

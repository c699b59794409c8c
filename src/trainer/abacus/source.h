// AbacusSource: the stream of training conversations of abacus, and the stream that it holds back.
//
//   CAPSTAN_TRY(auto source, AbacusSource::open({.kind = "abacus", .seed = 7, .mixture =
//   {{"addition", 1.0}}}));
//
// Sample i depends on (seed, mixture, side of the split, i) alone, by integer arithmetic only. An empty
// mixture means kDefaultMixture; a kind that is not named in a given mixture is not drawn. Failure: kInvalid
// for an unknown kind or a weight below 0, with the known kinds. Threads: const members from any.  Cost:
// about 20 microseconds a sample; 64 times that on the held-out side.
#pragma once

#include <array>
#include <memory>
#include <utility>

#include "trainer/abacus/problem.h"
#include "trainer/data.h"

namespace capstan::trainer::abacus {

inline constexpr std::size_t kSampleTokensMax = 1024;

class AbacusSource : public DataSource {
 public:
  static Result<std::unique_ptr<DataSource>> open(const DataConfig& config);

  Sample sample(std::uint64_t index) const override;
  std::unique_ptr<DataSource> held_out() const override;
  std::int32_t vocabulary_size() const override;
  // tokenizer.json, generation_config.json and capstan.json.
  Result<void> write_tokenizer(const std::filesystem::path& directory) const override;

 private:
  using Weights = std::array<std::uint64_t, kKinds>;
  AbacusSource(std::uint64_t seed, Weights weights, bool held_out);

  std::uint64_t seed_;
  Weights weights_;
  std::uint64_t total_ = 0;
  bool held_out_;
};

// The files that make the exported directory readable for any engine; also used by tests.
Result<void> write_tokenizer_files(const std::filesystem::path& directory);

}  // namespace capstan::trainer::abacus

// Every sample has its own generator, seeded by (seed, index), so no state runs through the stream.
#include "trainer/abacus/source.h"

#include <cmath>

#include "base/assert.h"
#include "trainer/abacus/conversation.h"

namespace capstan::trainer::abacus {
namespace {

// By how hard a kind is to learn, in thousandths; order of Kind.
constexpr std::array<std::uint64_t, kKinds> kDefaultMixture = {130, 140, 150, 160, 70, 90,
                                                               80,  90,  50,  20,  20};
constexpr double kWeightMax = 1e6;
constexpr double kUnitsPerWeight = 1e6;

}  // namespace

AbacusSource::AbacusSource(std::uint64_t seed, Weights weights, bool held_out)
    : seed_(seed), weights_(weights), held_out_(held_out) {
  for (const std::uint64_t weight : weights_) total_ += weight;
}

Result<std::unique_ptr<DataSource>> AbacusSource::open(const DataConfig& config) {
  Weights weights{};
  if (config.mixture.empty()) weights = kDefaultMixture;
  for (const auto& [name, weight] : config.mixture) {
    const std::optional<Kind> kind = kind_of_name(name);
    if (!kind) {
      std::string known;
      for (int i = 0; i < kKinds; ++i) {
        known += (i > 0 ? ", " : "") + std::string(kind_name(static_cast<Kind>(i)));
      }
      return fail(Code::kInvalid, "data.mixture: unknown kind '{}'; the kinds are {}", name, known);
    }
    if (!(weight >= 0 && weight <= kWeightMax)) {
      return fail(Code::kInvalid, "data.mixture.{}: weight {} is outside 0..{}", name, weight, kWeightMax);
    }
    weights[static_cast<std::size_t>(*kind)] =
        static_cast<std::uint64_t>(std::llround(weight * kUnitsPerWeight));
  }
  std::unique_ptr<AbacusSource> source(new AbacusSource(config.seed, weights, false));
  if (source->total_ == 0) return fail(Code::kInvalid, "data.mixture: all weights are 0");
  return source;
}

Sample AbacusSource::sample(std::uint64_t index) const {
  Prng rng(Prng::at(seed_ + (held_out_ ? 0x9E3779B9u : 0u), index));
  std::uint64_t left = rng.below(total_);
  std::size_t kind = 0;
  while (left >= weights_[kind]) left -= weights_[kind++];
  const Conversation conversation = draw_conversation(static_cast<Kind>(kind), held_out_, rng);
  Sample sample = to_sample(conversation, rng);
  CAPSTAN_ASSERT(sample.tokens.size() <= kSampleTokensMax);
  return sample;
}

std::unique_ptr<DataSource> AbacusSource::held_out() const {
  return std::unique_ptr<DataSource>(new AbacusSource(seed_, weights_, true));
}

std::int32_t AbacusSource::vocabulary_size() const { return kVocabulary; }

Result<void> AbacusSource::write_tokenizer(const std::filesystem::path& directory) const {
  return write_tokenizer_files(directory);
}

}  // namespace capstan::trainer::abacus

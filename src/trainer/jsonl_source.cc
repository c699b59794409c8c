// How it works: the file is parsed once into samples. An epoch's order is a Feistel network over the smallest
// power of four that holds the count, walked until the image falls inside ("cycle walking"), so any index of
// the endless stream is found in constant time and without a shuffled table.
#include "trainer/jsonl_source.h"

#include <algorithm>
#include <bit>

#include "base/file.h"
#include "base/json.h"
#include "base/prng.h"
#include "base/text.h"

namespace capstan::trainer {
namespace {

std::string at_line(const DataConfig& config, std::size_t line) {
  return fmt::format("{}:{}", config.path.string(), line);
}

Result<Sample> sample_of_tokens(const Json& object, const DataConfig& config, const std::string& where) {
  Sample sample;
  const Json& tokens = *object.find("tokens");
  if (!tokens.is_array() || tokens.size() < 2) {
    return fail(Code::kInvalid, "{}: \"tokens\" must be a list of at least 2 ids", where);
  }
  if (static_cast<std::int64_t>(tokens.size()) > config.tokens_max) {
    return fail(Code::kInvalid, "{}: {} tokens are more than data.tokens_max = {}", where, tokens.size(),
                config.tokens_max);
  }
  for (const Json& token : tokens.items()) {
    if (!token.is_int() || token.as_int() < 0 || token.as_int() >= kTokenIdMax) {
      return fail(Code::kInvalid, "{}: a token must be an integer from 0 to {}, not {}", where,
                  kTokenIdMax - 1, token.dump());
    }
    sample.tokens.push_back(static_cast<std::int32_t>(token.as_int()));
  }
  const Json* targets = object.find("targets");
  if (targets == nullptr) {
    sample.is_target.assign(sample.tokens.size(), 1);
  } else {
    if (!targets->is_array() || targets->size() != tokens.size()) {
      return fail(Code::kInvalid, "{}: \"targets\" must be a list as long as \"tokens\" ({})", where,
                  tokens.size());
    }
    for (const Json& target : targets->items()) {
      const bool one = target.is_int() && target.as_int() == 1;
      if (!one && !(target.is_int() && target.as_int() == 0)) {
        return fail(Code::kInvalid, "{}: a target must be 0 or 1, not {}", where, target.dump());
      }
      sample.is_target.push_back(one);
    }
  }
  sample.is_target[0] = 0;
  return sample;
}

Result<void> append_text(const Json& text, const DataConfig& config, const std::string& where,
                         std::vector<Sample>& samples) {
  if (!text.is_string() || text.as_string().size() < 2) {
    return fail(Code::kInvalid, "{}: \"text\" must be a string of at least 2 bytes", where);
  }
  const std::string& bytes = text.as_string();
  const auto piece = static_cast<std::size_t>(config.tokens_max);
  for (std::size_t begin = 0; begin + 1 < bytes.size(); begin += piece) {
    const std::size_t end = std::min(begin + piece, bytes.size());
    Sample sample;
    for (std::size_t i = begin; i < end; ++i) sample.tokens.push_back(static_cast<unsigned char>(bytes[i]));
    sample.is_target.assign(sample.tokens.size(), 1);
    sample.is_target[0] = 0;
    samples.push_back(std::move(sample));
  }
  return {};
}

Result<void> append_line(std::string_view line, const DataConfig& config, const std::string& where,
                         std::vector<Sample>& samples) {
  Result<Json> parsed = Json::parse(line);
  if (!parsed) return std::unexpected(std::move(parsed.error()).with_context(where));
  if (!parsed->is_object()) {
    return fail(Code::kInvalid, "{}: a line must be a JSON object, not {}", where, parsed->type_name());
  }
  for (const auto& [key, value] : parsed->members()) {
    if (key != "tokens" && key != "targets" && key != "text") {
      return fail(Code::kInvalid, "{}: unknown key '{}'; a line has \"tokens\" and \"targets\", or \"text\"",
                  where, key);
    }
  }
  const bool has_tokens = parsed->contains("tokens");
  if (has_tokens == parsed->contains("text")) {
    return fail(Code::kInvalid, "{}: a line needs either \"tokens\" or \"text\"", where);
  }
  if (!has_tokens) return append_text(*parsed->find("text"), config, where, samples);
  CAPSTAN_TRY(Sample sample, sample_of_tokens(*parsed, config, where));
  samples.push_back(std::move(sample));
  return {};
}

}  // namespace

std::uint64_t permuted(std::uint64_t position, std::uint64_t count, std::uint64_t key) {
  CAPSTAN_ASSERT(position < count);
  const int half_bits = std::max(1, (static_cast<int>(std::bit_width(count - 1)) + 1) / 2);
  const std::uint64_t mask = (std::uint64_t{1} << half_bits) - 1;
  std::uint64_t value = position;
  do {
    std::uint64_t left = value >> half_bits;
    std::uint64_t right = value & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t mixed = left ^ (Prng::at(key + round, right) & mask);
      left = right;
      right = mixed;
    }
    value = (left << half_bits) | right;
  } while (value >= count);
  return value;
}

Result<std::unique_ptr<DataSource>> JsonlSource::open(const DataConfig& config) {
  if (config.path.empty())
    return fail(Code::kInvalid, "data.path: a jsonl source needs the path of its file");
  CAPSTAN_TRY(const std::string text, read_file(config.path, kJsonlBytesMax));
  std::unique_ptr<JsonlSource> source(new JsonlSource);
  source->seed_ = config.seed;
  std::size_t number = 0;
  for (const std::string_view line : split(text, '\n')) {
    number += 1;
    if (trim(line).empty()) continue;
    CAPSTAN_CHECK(append_line(line, config, at_line(config, number), source->samples_));
  }
  if (source->samples_.empty())
    return fail(Code::kInvalid, "{}: the file holds no samples", config.path.string());
  for (const Sample& sample : source->samples_) {
    const std::int32_t largest = *std::max_element(sample.tokens.begin(), sample.tokens.end());
    source->vocabulary_size_ = std::max(source->vocabulary_size_, largest + 1);
  }
  if (config.held_out >= static_cast<std::int64_t>(source->samples_.size())) {
    return fail(Code::kInvalid, "{}: data.held_out = {} leaves none of the {} samples to train on",
                config.path.string(), config.held_out, source->samples_.size());
  }
  const auto first = source->samples_.end() - config.held_out;
  source->held_out_.assign(std::make_move_iterator(first), std::make_move_iterator(source->samples_.end()));
  source->samples_.erase(first, source->samples_.end());
  return std::unique_ptr<DataSource>(std::move(source));
}

std::unique_ptr<DataSource> JsonlSource::held_out() const {
  if (held_out_.empty()) return nullptr;
  std::unique_ptr<JsonlSource> source(new JsonlSource);
  source->samples_ = held_out_;
  source->vocabulary_size_ = vocabulary_size_;
  source->in_file_order_ = true;
  return source;
}

Sample JsonlSource::sample(std::uint64_t index) const {
  const std::uint64_t count = samples_.size();
  if (in_file_order_) return samples_[index % count];
  return samples_[permuted(index % count, count, Prng::at(seed_, index / count))];
}

}  // namespace capstan::trainer

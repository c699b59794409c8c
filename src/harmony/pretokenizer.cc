// PCRE2 with its JIT, in UTF mode with Unicode properties (\p{Lu} and \s as Unicode has them).
//
// PCRE2_MATCH_INVALID_UTF makes bytes that are no UTF-8 simply match nothing. The match limit is raised far
// above the default, because a long run of capital letters backtracks once per letter, which is linear and
// harmless.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "harmony/pretokenizer.h"

#include <pcre2.h>

#include "base/assert.h"

namespace capstan::harmony {

const std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

constexpr std::uint32_t kMatchLimit = 200'000'000;

// The largest cut of at most `bytes_max` bytes that does not split a UTF-8 character (of valid text).
std::size_t character_end(std::string_view text, std::size_t bytes_max) {
  if (text.size() <= bytes_max) return text.size();
  std::size_t end = bytes_max;
  while (end > bytes_max - 3 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return end;
}

void push_bounded(std::string_view piece, std::size_t bytes_max, std::vector<std::string_view>& out) {
  while (!piece.empty()) {
    const std::size_t end = character_end(piece, bytes_max);
    out.push_back(piece.substr(0, end));
    piece.remove_prefix(end);
  }
}

}  // namespace

class Pretokenizer::Step {
 public:
  static Result<std::unique_ptr<Step>> compile(std::string_view pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* code =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &error, &offset, nullptr);
    if (code == nullptr) {
      unsigned char message[256] = {};
      pcre2_get_error_message(error, message, sizeof message);
      return fail(Code::kUnsupported, "pre-tokenizer pattern, at character {}: {}", offset,
                  reinterpret_cast<const char*>(message));
    }
    pcre2_jit_compile(code,
                      PCRE2_JIT_COMPLETE);  // without a JIT the interpreter matches: slower, same result
    return std::unique_ptr<Step>(new Step(code));
  }

  ~Step() {
    pcre2_match_context_free(context_);
    pcre2_code_free(code_);
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  void cut(std::string_view text, std::vector<std::string_view>& out) const {
    const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
        pcre2_match_data_create_from_pattern(code_, nullptr), &pcre2_match_data_free);
    CAPSTAN_ASSERT(match != nullptr);
    std::size_t at = 0;
    while (at < text.size()) {
      const int found = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, 0,
                                    match.get(), context_);
      if (found == PCRE2_ERROR_NOMATCH) {
        push_bounded(text.substr(at), kPieceBytesMax, out);
        return;
      }
      if (found < 0) {  // a limit of the matcher: take a bounded piece as it is and go on behind it
        const std::size_t length = character_end(text.substr(at), kFallbackBytes);
        out.push_back(text.substr(at, length));
        at += length;
        continue;
      }
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match.get());
      const std::size_t begin = span[0];
      std::size_t end = span[1];
      if (end <= begin)
        end = begin + character_end(text.substr(begin), 4);  // an empty match must not stand still
      if (begin > at) push_bounded(text.substr(at, begin - at), kPieceBytesMax, out);
      push_bounded(text.substr(begin, end - begin), kPieceBytesMax, out);
      at = end;
    }
  }

 private:
  explicit Step(pcre2_code* code) : code_(code), context_(pcre2_match_context_create(nullptr)) {
    CAPSTAN_ASSERT(context_ != nullptr);
    pcre2_set_match_limit(context_, kMatchLimit);
  }

  pcre2_code* code_;
  pcre2_match_context* context_;
};

Pretokenizer::Pretokenizer() = default;
Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

Result<void> Pretokenizer::add_step(std::string_view pattern) {
  CAPSTAN_TRY(auto step, Step::compile(pattern));
  steps_.push_back(std::move(step));
  return {};
}

Result<Pretokenizer> Pretokenizer::from_pattern(std::string_view pattern) {
  Pretokenizer cutter;
  CAPSTAN_CHECK(cutter.add_step(pattern));
  return cutter;
}

Result<Pretokenizer> Pretokenizer::from_json(const Json& json) {
  Pretokenizer cutter;
  if (!json.is_null()) CAPSTAN_CHECK(cutter.add_json(json));
  return cutter;
}

Result<void> Pretokenizer::add_json(const Json& json) {
  const std::string type = json.get_string("type").value_or("");
  if (type == "Sequence") {
    const Json* steps = json.find("pretokenizers");
    if (steps == nullptr || !steps->is_array())
      return fail(Code::kCorrupt, "pre_tokenizer Sequence has no list");
    for (const Json& step : steps->items()) CAPSTAN_CHECK(add_json(step));
    return {};
  }
  if (type == "ByteLevel") {
    add_prefix_space_ = add_prefix_space_ || json.get_bool("add_prefix_space").value_or(true);
    return json.get_bool("use_regex").value_or(true) ? add_step(kGpt2Pattern) : Result<void>{};
  }
  if (type == "Digits")
    return add_step(json.get_bool("individual_digits").value_or(false) ? R"(\p{N})" : R"(\p{N}+)");
  if (type != "Split")
    return fail(Code::kUnsupported, "pre_tokenizer \"{}\" is not one of Sequence, Split, ByteLevel, Digits",
                type);

  const std::string behavior = json.get_string("behavior").value_or("Isolated");
  const bool invert = json.get_bool("invert").value_or(false);
  // Isolated makes pieces of matches and of gaps, so it is the same inverted. Removed with invert drops the
  // gaps, which is the same only where the pattern matches everything, as GPT-4's patterns do.
  if (behavior != "Isolated" && !(behavior == "Removed" && invert)) {
    return fail(Code::kUnsupported, "pre_tokenizer Split with behavior \"{}\" (invert {}) is not supported",
                behavior, invert);
  }
  const Json* pattern = json.find("pattern");
  if (pattern == nullptr) return fail(Code::kCorrupt, "pre_tokenizer Split has no pattern");
  if (const auto regex = pattern->get_string("Regex")) return add_step(*regex);
  if (const auto text = pattern->get_string("String")) return add_step("\\Q" + *text + "\\E");
  return fail(Code::kCorrupt, "pre_tokenizer Split's pattern is neither a Regex nor a String");
}

std::vector<std::string_view> Pretokenizer::cut(std::string_view text) const {
  std::vector<std::string_view> pieces;
  if (text.empty()) return pieces;
  push_bounded(text, steps_.empty() ? kPieceBytesMax : text.size(), pieces);
  for (const auto& step : steps_) {
    std::vector<std::string_view> finer;
    finer.reserve(pieces.size() * 2);
    for (const std::string_view piece : pieces) step->cut(piece, finer);
    pieces = std::move(finer);
  }
  return pieces;
}

}  // namespace capstan::harmony

// Text <-> tokens, for byte-level BPE vocabularies (GPT-2's family, gpt-oss's o200k_harmony).
//
//   CAPSTAN_TRY(Tokenizer tokenizer, Tokenizer::load("model/tokenizer.json"));
//   std::vector<TokenId> tokens = tokenizer.encode(user_text);      // never a special token
//   StreamDecoder decoder(tokenizer);
//   for (TokenId token : generated) out << decoder.push(token);     // whole UTF-8 characters only
//   out << decoder.finish();
//
// Loads Hugging Face tokenizer.json (model BPE; pre_tokenizer Sequence/Split/ByteLevel/Digits or none; no
// normalizer), a GGUF file's lists, and tiktoken's o200k_base rank file with o200k_harmony's specials.
// Threads: immutable after loading, read by any.  Cost: loading o200k takes about 0.2 s from ranks, a second
// or two from tokenizer.json; encoding is O(n log n) in the longest piece and linear in the text. Failure:
// Code::kCorrupt for a broken file, kUnsupported for a kind of tokenizer that is not listed above.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "harmony/vocabulary.h"

namespace capstan::harmony {

// sha256 of o200k_base.tiktoken as openai/harmony pins it.
inline constexpr std::string_view kO200kSha256 =
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d";

// As GGUF has them: tokens by id, in GPT-2's byte alphabet; ggml's type of each (empty: all ordinary); "left right".
struct TokenList {
  std::span<const std::string_view> tokens = {};
  std::span<const std::int64_t> kinds = {};
  std::span<const std::string_view> merges = {};
  std::string_view pre = {};  // "gpt-4o"
};

class Tokenizer {
 public:
  static Result<Tokenizer> load(const std::filesystem::path& tokenizer_json);
  static Result<Tokenizer> from_json(std::string_view tokenizer_json);
  // A GGUF file's lists; kUnsupported for a pre-tokenizer other than gpt-4o, gpt-2 and default.
  static Result<Tokenizer> from_list(const TokenList& list);
  // The bytes of o200k_base.tiktoken ("base64 rank" lines); another hash than kO200kSha256 is kCorrupt.
  static Result<Tokenizer> o200k_harmony(std::string_view ranks);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Text of users, tools and models: what looks like a special token in it is ordinary text. Any bytes go in;
  // decode() gives the same bytes back.
  std::vector<TokenId> encode(std::string_view text) const;
  void encode_to(std::string_view text, std::vector<TokenId>& out) const;
  // Text that we wrote ourselves: "<|start|>" in it is the special token.
  std::vector<TokenId> encode_with_specials(std::string_view text) const;

  std::string decode(std::span<const TokenId> tokens) const;
  // The token's bytes (not always whole characters); a special's content; empty for an unknown id.
  std::string_view bytes(TokenId token) const;
  // The id of an added token such as "<|start|>".
  std::optional<TokenId> special(std::string_view content) const;
  bool is_special(TokenId token) const;
  bool is_used(TokenId token) const;
  // One past the largest id; a model's own vocabulary may be padded beyond it.
  TokenId vocabulary_size() const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);
  void encode_ordinary(std::string_view text, std::vector<TokenId>& out) const;

  std::unique_ptr<Parts> parts_;
  friend struct TokenizerLoader;
};

// Decodes tokens as they come: bytes that may still become a character are held back, bytes that cannot are
// replaced by U+FFFD, so every string it gives is valid UTF-8. Specials are not its business: it would print
// their names.  Threads: one owner; the tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  std::string push(TokenId token);
  // The end: an unfinished character becomes one U+FFFD. The decoder is then as new.
  std::string finish();
  bool holds_back() const { return !pending_.empty(); }

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;
};

}  // namespace capstan::harmony

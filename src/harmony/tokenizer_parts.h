// What a Tokenizer is made of, for its loaders: tokenizer_json.cc and tiktoken.cc. Private to this folder.
#pragma once

#include <memory>

#include "harmony/bpe.h"
#include "harmony/pretokenizer.h"
#include "harmony/tokenizer.h"

namespace capstan::harmony {

struct Tokenizer::Parts {
  Vocabulary vocabulary;
  Merges merges;
  Pretokenizer cutter;
  bool whole_first = false;  // a piece that is a token is taken before merging
};

// A merge of two tokens in GPT-2's byte alphabet; kCorrupt if a part or what they make is not in the vocabulary.
Result<void> add_merge(const Vocabulary& vocabulary, std::string_view left, std::string_view right, Merges& merges);

// Checks what encoding relies on, then makes the tokenizer.
struct TokenizerLoader {
  static Result<Tokenizer> make(Vocabulary vocabulary, Merges merges, Pretokenizer cutter, bool whole_first) {
    if (const auto byte = vocabulary.missing_byte()) {
      return fail(Code::kUnsupported,
                  "the vocabulary has no token for byte 0x{:02X}; a byte-level one has all 256", *byte);
    }
    return Tokenizer(std::make_unique<Tokenizer::Parts>(
        Tokenizer::Parts{std::move(vocabulary), std::move(merges), std::move(cutter), whole_first}));
  }
};

}  // namespace capstan::harmony

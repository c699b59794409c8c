// A byte-level tokenizer without merges for tests: token i is byte i, then harmony's specials from 256 on.
// Prompts rendered with it decode to readable text.
#pragma once

#include <array>
#include <string>

#include "base/assert.h"
#include "base/json.h"
#include "harmony/byte_alphabet.h"
#include "harmony/tokenizer.h"

namespace capstan::harmony {

inline Json byte_level_json() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[alphabet_from_bytes(std::string(1, static_cast<char>(byte)))] = byte;
  }
  Json added = Json::array();
  int id = 256;
  for (const char* content : {"<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>",
                              "<|return|>", "<|call|>", "<|endoftext|>", "<|reserved_264|>"}) {
    added.push_back(Json::object({{"id", id++}, {"content", content}, {"special", true}}));
  }
  return Json::object(
      {{"added_tokens", std::move(added)},
       {"normalizer", nullptr},
       {"pre_tokenizer",
        Json::object({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}})},
       {"model", Json::object({{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", Json::array()}})}});
}

inline Tokenizer byte_level_tokenizer() {
  auto tokenizer = Tokenizer::from_json(byte_level_json().dump());
  CAPSTAN_ASSERT(tokenizer.has_value());
  return *std::move(tokenizer);
}

}  // namespace capstan::harmony

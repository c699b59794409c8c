// Random streams for the parser's property test and its fuzzer: marks and words of the format in any order.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/assert.h"
#include "base/prng.h"
#include "harmony/parser.h"

namespace capstan::harmony {

inline std::string random_soup(Prng& random, int pieces) {
  static constexpr std::array<std::string_view, 26> kPieces = {"<|start|>",
                                                               "<|end|>",
                                                               "<|message|>",
                                                               "<|channel|>",
                                                               "<|constrain|>",
                                                               "<|return|>",
                                                               "<|call|>",
                                                               "<|endoftext|>",
                                                               "assistant",
                                                               "user",
                                                               "functions.f",
                                                               "analysis",
                                                               "commentary",
                                                               "final",
                                                               " to=functions.web-browsing",
                                                               "to=",
                                                               " to= f",
                                                               "json",
                                                               " code",
                                                               " ",
                                                               "\n",
                                                               "<|",
                                                               "|>",
                                                               "The answer is 4.",
                                                               "é🙂",
                                                               "{\"a\": 1}"};
  std::string soup;
  for (int i = 0; i < pieces; ++i) soup += kPieces[random.below(kPieces.size())];
  return soup;
}

// What must hold for every stream: events are well formed (start, texts, end, start …), and every byte
// between
// <|message|> and the next ending mark is told, in order. Returns an empty string, or what is wrong.
inline std::string broken_property(const std::vector<Event>& events) {
  bool open = false;
  for (const Event& event : events) {
    switch (event.kind) {
      case Event::Kind::kMessageStart:
        if (open) return "a message starts inside another";
        if (event.header.role.empty()) return "a message has no role";
        open = true;
        break;
      case Event::Kind::kText:
        if (!open) return "text outside a message";
        if (event.text.empty()) return "an empty text event";
        break;
      case Event::Kind::kMessageEnd:
        if (!open) return "an end without a start";
        open = false;
        break;
    }
  }
  return open ? "the last message has no end" : "";
}

}  // namespace capstan::harmony

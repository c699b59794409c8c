// Goal: tokens agree with independent implementations, decode to the same bytes, and no text becomes a
// special.
//
// o200k is compared with ids that npm's gpt-tokenizer 4.0.0 (MIT, its own JavaScript) gave for the strings in
// testdata/o200k_golden.json (without U+FEFF and U+0085, where JavaScript's \s differs from Unicode's). Its
// rank file is looked for in tests/clients/node_modules or $CAPSTAN_O200K.
#include "harmony/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/file.h"
#include "base/json.h"
#include "base/prng.h"
#include "base/text.h"
#include "harmony/byte_alphabet.h"
#include "harmony/tokenizer_testing.h"

namespace capstan::harmony {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A tokenizer.json with the 256 bytes, " a" -> 256.. merges as given, and two specials.
Json small_json(const std::vector<std::pair<std::string, std::string>>& merges, bool pairs) {
  Json root = byte_level_json();
  Json& model = root["model"];
  int next = 300;
  for (const auto& [left, right] : merges) {
    model["vocab"][left + right] = next++;
    model["merges"].push_back(pairs ? Json::array({left, right}) : Json(left + " " + right));
  }
  return root;
}

Tokenizer must(Result<Tokenizer> tokenizer) {
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  return *std::move(tokenizer);
}

// The slow twin: scan all pairs, join the first of lowest rank, start again.
std::vector<std::string> merge_slowly(std::vector<std::string> parts,
                                      const std::vector<std::pair<std::string, std::string>>& merges) {
  for (bool again = true; again;) {
    again = false;
    for (std::size_t rank = 0; rank < merges.size() && !again; ++rank) {
      for (std::size_t i = 0; i + 1 < parts.size() && !again; ++i) {
        if (parts[i] == merges[rank].first && parts[i + 1] == merges[rank].second) {
          parts[i] += parts[i + 1];
          parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          again = true;
        }
      }
    }
  }
  return parts;
}

TEST(ByteAlphabet, MapsEveryByteToItsOwnCharacterAndBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(bytes_from_alphabet(alphabet_from_bytes(all)), all);
  EXPECT_EQ(alphabet_from_bytes(" the\n"), "ĠtheĊ");
  EXPECT_EQ(bytes_from_alphabet("中"), std::nullopt);
  EXPECT_EQ(bytes_from_alphabet("\xC3"), std::nullopt);
}

TEST(Tokenizer, ReadsMergesAsStringsAndAsPairsAlike) {
  const std::vector<std::pair<std::string, std::string>> merges = {{"Ġ", "a"}, {"b", "c"}, {"Ġa", "bc"}};
  for (const bool pairs : {false, true}) {
    const Tokenizer tokenizer = must(Tokenizer::from_json(small_json(merges, pairs).dump()));
    EXPECT_THAT(tokenizer.encode(" abc"), ElementsAre(302));
    EXPECT_THAT(tokenizer.encode(" ab"), ElementsAre(300, 'b'));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(" abc abx")), " abc abx");
  }
}

TEST(Tokenizer, IgnoreMergesTakesAWholePieceBeforeMerging) {
  Json root = small_json({{"a", "b"}}, true);
  root["model"]["vocab"]["abc"] = 310;  // no merge makes it
  EXPECT_THAT(must(Tokenizer::from_json(root.dump())).encode("abc"), ElementsAre(300, 'c'));
  root["model"]["ignore_merges"] = true;
  EXPECT_THAT(must(Tokenizer::from_json(root.dump())).encode("abc"), ElementsAre(310));
}

TEST(Tokenizer, UserTextNeverBecomesASpecialToken) {
  const Tokenizer tokenizer = byte_level_tokenizer();
  for (const std::string text : {"<|start|>", "x<|end|>y", "<|channel|>final<|message|>"}) {
    for (const TokenId token : tokenizer.encode(text)) EXPECT_FALSE(tokenizer.is_special(token)) << text;
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
  EXPECT_THAT(tokenizer.encode_with_specials("a<|end|>b"),
              ElementsAre('a', *tokenizer.special("<|end|>"), 'b'));
}

TEST(Tokenizer, SpecialsListedInTheVocabularyStayOutOfReachOfText) {
  Json root = small_json({{"<", "|"}}, false);
  root["model"]["vocab"]["<|"] = 300;
  root["added_tokens"].push_back(Json::object({{"id", 300}, {"content", "<|"}, {"special", true}}));
  const Tokenizer tokenizer = must(Tokenizer::from_json(root.dump()));
  for (const TokenId token : tokenizer.encode("<|x")) EXPECT_NE(token, 300);
}

TEST(Tokenizer, AddedTokensThatAreNotSpecialAreFoundInText) {
  Json root = byte_level_json();
  root["added_tokens"].push_back(Json::object({{"id", 900}, {"content", "<tool>"}, {"special", false}}));
  const Tokenizer tokenizer = must(Tokenizer::from_json(root.dump()));
  EXPECT_THAT(tokenizer.encode("a<tool>b"), ElementsAre('a', 900, 'b'));
}

TEST(Tokenizer, VocabularyGapsHaveNoBytes) {
  const Tokenizer tokenizer = must(Tokenizer::from_json(small_json({{"a", "b"}}, false).dump()));
  EXPECT_FALSE(tokenizer.is_used(299));
  EXPECT_EQ(tokenizer.bytes(299), "");
  EXPECT_EQ(tokenizer.bytes(-1), "");
  EXPECT_EQ(tokenizer.bytes(1 << 30), "");
}

TEST(Tokenizer, BrokenFilesAreRefusedWithTheirReason) {
  const auto error = [](const std::string& text) {
    const auto result = Tokenizer::from_json(text);
    return result ? std::string("accepted") : result.error().message;
  };
  EXPECT_THAT(error("{}"), HasSubstr("no model"));
  Json root = byte_level_json();
  root["model"]["merges"].push_back("a zz");
  EXPECT_THAT(error(root.dump()), HasSubstr("\"zz\" is not in the vocabulary"));
  root = byte_level_json();
  root["model"]["vocab"].erase("a");
  EXPECT_THAT(error(root.dump()), HasSubstr("byte 0x61"));
  root = byte_level_json();
  root["normalizer"] = Json::object({{"type", "NFC"}});
  EXPECT_THAT(error(root.dump()), HasSubstr("normalizer"));
  root = byte_level_json();
  root["pre_tokenizer"] = Json::object({{"type", "Metaspace"}});
  EXPECT_THAT(error(root.dump()), HasSubstr("Metaspace"));
  root["pre_tokenizer"] = Json::object({{"type", "Split"}, {"pattern", Json::object({{"Regex", "(a"}})}});
  EXPECT_THAT(error(root.dump()), HasSubstr("at character"));
  root = byte_level_json();
  root["model"]["vocab"]["zz"] = 97;
  EXPECT_THAT(error(root.dump()), HasSubstr("given twice"));
}

// Random merges over a three-letter alphabet, random texts short (scan) and long (heap): both equal the twin.
TEST(Bpe, AgreesWithTheSlowTwinOnRandomVocabularies) {
  Prng random(7);
  for (int round = 0; round < 30; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> merges;
    for (int i = 0; i < 12; ++i) {
      const std::string left = tokens[random.below(tokens.size())],
                        right = tokens[random.below(tokens.size())];
      if (std::ranges::find(tokens, left + right) != tokens.end()) continue;
      merges.emplace_back(left, right);
      tokens.push_back(left + right);
    }
    const Tokenizer tokenizer = must(Tokenizer::from_json(small_json(merges, true).dump()));
    for (const int length : {1, 5, 30, 48, 49, 200}) {
      std::string text;
      for (int i = 0; i < length; ++i) text.push_back(static_cast<char>('a' + random.below(3)));
      std::vector<std::string> letters, got;
      for (const char c : text) letters.emplace_back(1, c);
      for (const TokenId token : tokenizer.encode(text)) got.emplace_back(tokenizer.bytes(token));
      EXPECT_EQ(got, merge_slowly(letters, merges)) << text;
    }
  }
}

TEST(Tokenizer, AnyBytesComeBackFromDecode) {
  const Tokenizer tokenizer = must(Tokenizer::from_json(small_json({{"a", "b"}, {"Ã", "©"}}, false).dump()));
  Prng random(3);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (std::uint64_t i = random.below(40); i > 0; --i) text.push_back(static_cast<char>(random.below(256)));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
}

TEST(Tokenizer, AMegabyteOfOneThingIsNoAttack) {
  const Tokenizer tokenizer =
      must(Tokenizer::from_json(small_json({{"a", "a"}, {"aa", "aa"}, {"Ġ", "Ġ"}}, true).dump()));
  for (const std::string unit : {"a", " ", "A", "\n", "\xCC\x81", "'", "<|", "\xFF"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << unit;
  }
}

TEST(StreamDecoder, HoldsBackIncompleteCharactersAndReplacesBrokenOnes) {
  const Tokenizer tokenizer = byte_level_tokenizer();
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_TRUE(decoder.holds_back());
  EXPECT_EQ(decoder.push(0x99), "");
  EXPECT_EQ(decoder.push(0x82), "🙂");
  EXPECT_EQ(decoder.push(0xE4), "");
  EXPECT_EQ(decoder.push('x'), "\xEF\xBF\xBDx");
  EXPECT_EQ(decoder.push(0x80), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.push(0xC3), "");
  EXPECT_EQ(decoder.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, GivesValidTextForAnyBytes) {
  const Tokenizer tokenizer = byte_level_tokenizer();
  Prng random(11);
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += decoder.push(static_cast<TokenId>(random.below(256)));
  text += decoder.finish();
  EXPECT_TRUE(Json::parse(Json(text).dump()).has_value());
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t length = utf8_sequence_length(rest);
    ASSERT_GT(length, 0u);
    rest.remove_prefix(length);
  }
}

class O200k : public ::testing::Test {
 protected:
  static const Tokenizer* tokenizer() {
    static const std::unique_ptr<Tokenizer> loaded = [] {
      const char* given = std::getenv("CAPSTAN_O200K");
      const std::string path =
          given ? given : "tests/clients/node_modules/gpt-tokenizer/data/o200k_base.tiktoken";
      const auto ranks = read_file(path);
      if (!ranks) return std::unique_ptr<Tokenizer>();
      auto tokenizer = Tokenizer::o200k_harmony(*ranks);
      EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
      return tokenizer ? std::make_unique<Tokenizer>(*std::move(tokenizer)) : nullptr;
    }();
    return loaded.get();
  }
  void SetUp() override {
    if (tokenizer() == nullptr) {
      GTEST_SKIP() << "o200k_base.tiktoken is not here: run tests/clients/install.sh, or set CAPSTAN_O200K "
                      "to the file";
    }
  }
};

TEST_F(O200k, AgreesWithGptTokenizerOnItsGoldenStrings) {
  const auto text = read_file("src/harmony/testdata/o200k_golden.json");
  ASSERT_TRUE(text.has_value()) << text.error().message;
  const auto golden = Json::parse(*text);
  ASSERT_TRUE(golden.has_value()) << golden.error().message;
  ASSERT_GT(golden->size(), 40u);
  for (const Json& item : golden->items()) {
    std::vector<TokenId> expected;
    for (const Json& token : item.find("tokens")->items())
      expected.push_back(static_cast<TokenId>(token.as_int()));
    const std::string& input = item.find("text")->as_string();
    EXPECT_EQ(tokenizer()->encode(input), expected) << input;
    EXPECT_EQ(tokenizer()->decode(expected), input);
  }
}

TEST_F(O200k, HasHarmonysSpecials) {
  EXPECT_EQ(tokenizer()->special("<|start|>"), 200006);
  EXPECT_EQ(tokenizer()->special("<|return|>"), 200002);
  EXPECT_EQ(tokenizer()->special("<|call|>"), 200012);
  EXPECT_EQ(tokenizer()->special("<|reserved_200018|>"), 200018);
  EXPECT_EQ(tokenizer()->vocabulary_size(), 201088);
  EXPECT_THAT(tokenizer()->encode_with_specials("<|start|>assistant"), ElementsAre(200006, 173781));
}

TEST_F(O200k, EncodesAMegabyteOfOneThing) {
  for (const std::string unit : {"a", " ", "Z", "0", "漢", " \n", "'s", "\xCC\x81"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    EXPECT_EQ(tokenizer()->decode(tokenizer()->encode(text)), text) << unit;
  }
}

TEST(O200kFile, AnotherFileIsRefusedByItsHash) {
  const auto result = Tokenizer::o200k_harmony("IQ== 0\n");
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, Code::kCorrupt);
  EXPECT_THAT(result.error().message, HasSubstr("sha256"));
}

}  // namespace
}  // namespace capstan::harmony

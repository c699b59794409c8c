// Goal: a GGUF file alone is a model that answers: its tokenizer cuts text as tokenizer.json does, and the server says
// what it says over safetensors. What is broken in it, or too big, is refused with the key, the parts and the limit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "engine/server/load_model.h"
#include "engine/server/load_tokenizer.h"
#include "engine/server/memory_need.h"
#include "engine/testing/mutate.h"
#include "engine/testing/random_checkpoint.h"
#include "harmony/pretokenizer.h"
#include "harmony/tokenizer_testing.h"
#include "http/client.h"

namespace capstan::engine {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::GgufBuilder;
using testing::TemporaryDirectory;

struct Lists {
  std::vector<std::string> tokens, merges;
  std::vector<std::int32_t> kinds;
};

// A tokenizer.json of harmony/tokenizer_testing.h's kind, as GGUF lists it.
Lists lists_of(const Json& json) {
  const Json& model = *json.find("model");
  Lists out;
  const auto put = [&](std::int64_t id, const std::string& text, int kind) {
    if (out.tokens.size() <= static_cast<std::size_t>(id)) {
      out.tokens.resize(static_cast<std::size_t>(id) + 1);
      out.kinds.resize(out.tokens.size(), 5);
    }
    out.tokens[static_cast<std::size_t>(id)] = text;
    out.kinds[static_cast<std::size_t>(id)] = kind;
  };
  for (const auto& [text, id] : model.find("vocab")->members()) put(id.as_int(), text, 1);
  for (const Json& token : json.find("added_tokens")->items()) put(*token.get_int("id"), *token.get_string("content"), 3);
  for (std::size_t i = 0; i < out.tokens.size(); ++i) {
    if (out.tokens[i].empty()) out.tokens[i] = fmt::format("[PAD{}]", i);
  }
  for (const Json& merge : model.find("merges")->items()) out.merges.push_back(merge.as_string());
  return out;
}

GgufBuilder tokenizer_keys(const Lists& lists, std::string_view pre = "gpt-4o") {
  GgufBuilder keys;
  keys.string("tokenizer.ggml.model", "gpt2");
  keys.string("tokenizer.ggml.pre", pre);
  keys.strings("tokenizer.ggml.tokens", lists.tokens);
  keys.i32s("tokenizer.ggml.token_type", lists.kinds);
  keys.strings("tokenizer.ggml.merges", lists.merges);
  return keys;
}

Result<harmony::Tokenizer> tokenizer_of(const GgufBuilder& keys) {
  const std::string file = keys.build();
  auto contents = parse_gguf({reinterpret_cast<const std::uint8_t*>(file.data()), file.size()}, "x.gguf");
  if (!contents) return std::unexpected(contents.error());
  return gguf_tokenizer(contents->metadata);
}

// "hello", " hello" and parts, as merges of an o200k-like tokenizer.
Json json_with_merges() {
  Json root = harmony::byte_level_json();
  Json& model = root["model"];
  int next = 300;
  const std::string space = harmony::alphabet_from_bytes(" ");
  const std::pair<std::string, std::string> merges[] = {
      {"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {space, "hello"}, {"1", "2"}, {"'", "s"}};
  for (const auto& [left, right] : merges) {
    model["vocab"][left + right] = next++;
    model["merges"].push_back(left + " " + right);
  }
  model["ignore_merges"] = true;
  root["pre_tokenizer"] = Json::object(
      {{"type", "Split"}, {"pattern", Json::object({{"Regex", harmony::kO200kPattern}})}, {"behavior", "Isolated"}});
  return root;
}

TEST(GgufTokenizer, CutsAsTokenizerJsonDoes) {
  const Json json = json_with_merges();
  const auto expected = harmony::Tokenizer::from_json(json.dump());
  ASSERT_TRUE(expected) << expected.error().message;
  const auto tokenizer = tokenizer_of(tokenizer_keys(lists_of(json)));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  for (const std::string_view text : {"hello hello", "It's 1234 hello's\n\n", "<|start|>hello", "héllo ☃ \xff", ""}) {
    EXPECT_EQ(tokenizer->encode(text), expected->encode(text)) << text;
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  EXPECT_EQ(tokenizer->special("<|start|>"), expected->special("<|start|>"));
  EXPECT_EQ(tokenizer->encode_with_specials("<|start|>hello").size(), 2u);
  GgufBuilder whole;
  whole.string("tokenizer.huggingface.json", json.dump());
  const auto embedded = tokenizer_of(whole);
  ASSERT_TRUE(embedded) << embedded.error().message;
  EXPECT_EQ(embedded->encode("hello hello"), expected->encode("hello hello"));
}

TEST(GgufTokenizer, WhatIsWrongIsNamed) {
  const Lists good = lists_of(json_with_merges());
  const auto error = [](const GgufBuilder& keys) {
    const auto tokenizer = tokenizer_of(keys);
    return tokenizer ? std::string("accepted") : tokenizer.error().message;
  };
  EXPECT_EQ(error(tokenizer_keys(good)), "accepted");
  EXPECT_THAT(error({}), HasSubstr("no key 'tokenizer.ggml.tokens'"));
  EXPECT_THAT(error(tokenizer_keys(good, "llama-bpe")), HasSubstr("pre-tokenizer 'llama-bpe' is not known"));
  Lists lists = good;
  lists.kinds.pop_back();
  EXPECT_THAT(error(tokenizer_keys(lists)), HasSubstr("token types are listed for"));
  lists = good;
  lists.kinds[0] = 6;
  EXPECT_THAT(error(tokenizer_keys(lists)), HasSubstr("has type 6"));
  lists = good;
  lists.merges.push_back("q zz");
  EXPECT_THAT(error(tokenizer_keys(lists)), HasSubstr("\"zz\" is not in the vocabulary"));
  lists.merges.back() = "";
  EXPECT_THAT(error(tokenizer_keys(lists)), HasSubstr("has no space"));
  lists = good;
  lists.tokens[65] = lists.tokens[66];
  EXPECT_NE(error(tokenizer_keys(lists)), "accepted");
  GgufBuilder other;
  other.string("tokenizer.ggml.model", "llama");
  other.strings("tokenizer.ggml.tokens", {"a"});
  EXPECT_THAT(error(other), HasSubstr("'tokenizer.ggml.model' is 'llama'"));
}

void expect_text_survives(const Result<harmony::Tokenizer>& tokenizer, int& accepted) {
  if (!tokenizer) {
    EXPECT_FALSE(tokenizer.error().message.empty());
    return;
  }
  ++accepted;
  for (const std::string_view text : {"hello 12's <|start|>", "\xff\xfe h\xc3"}) {
    EXPECT_GE(tokenizer->decode(tokenizer->encode(text)).size(), text.size());
  }
}

TEST(GgufTokenizer, DamagedListsAndJsonNeverCrash) {
  const Json json = json_with_merges();
  const std::string text = json.dump(), file = tokenizer_keys(lists_of(json)).build();
  Prng prng(12);
  int from_json = 0, from_gguf = 0;
  for (int round = 0; round < 1500; ++round) {
    expect_text_survives(harmony::Tokenizer::from_json(testing::mutated(text, prng, text.size())), from_json);
    const std::string damaged = testing::mutated(file, prng, file.size());
    const auto contents = parse_gguf({reinterpret_cast<const std::uint8_t*>(damaged.data()), damaged.size()}, "x");
    if (contents) expect_text_survives(gguf_tokenizer(contents->metadata), from_gguf);
  }
  EXPECT_GT(from_json, 10);
  EXPECT_GT(from_gguf, 10);
}

// One greedy chat over a model; what differs between requests left out.
std::string answer_of(const fs::path& model, const std::string& content, int tokens_max = 60) {
  auto server = EngineServer::start({.served_name = "m"}, [&](const auto& progress) {
    return load_served_model({.model = model, .name = "m", .threads = 1}, progress);
  });
  if (!server) return server.error().message;
  if (const auto ready = (*server)->wait_ready(); !ready) return ready.error().message;
  http::Client client;
  const auto response = client.request(
      fmt::format("http://127.0.0.1:{}", (*server)->port()),
      {.method = "POST",
       .target = "/v1/chat/completions",
       .body = Json::object({{"model", "m"},
                             {"messages", Json::array({Json::object({{"role", "user"}, {"content", content}})})},
                             {"temperature", 0},
                             {"max_tokens", tokens_max}})
                   .dump()},
      {});
  if (!response) return response.error().message;
  const auto body = Json::parse(response->body);
  const Json* choices = body ? body->find("choices") : nullptr;
  return choices == nullptr ? response->body : choices->dump();
}

TEST(GgufServing, AFileAloneAnswersAsItsSafetensorsDo) {
  const testing::RandomCheckpoint checkpoint({.vocab = 272, .seed = 51});
  TemporaryDirectory stored, gguf;
  checkpoint.write(stored.path());
  Json json = harmony::byte_level_json();
  json["model"]["ignore_merges"] = true;
  json["pre_tokenizer"] = *json_with_merges().find("pre_tokenizer");
  ASSERT_TRUE(write_file_atomic(stored.path() / "tokenizer.json", json.dump()));
  const fs::path file = checkpoint.write_gguf(gguf.path(), {.start = tokenizer_keys(lists_of(json))});
  const std::string expected = answer_of(stored.path(), "hi");
  EXPECT_THAT(expected, HasSubstr("finish_reason"));
  EXPECT_EQ(answer_of(file, "hi"), expected);
  EXPECT_EQ(answer_of(gguf.path(), "hi"), expected);
}

// The trained model that comes with Capstan, converted: it still adds.
TEST(GgufServing, AbacusConvertedStillAdds) {
  const fs::path abacus = "models/abacus";
  const auto tensors = Safetensors::open_directory(abacus);
  ASSERT_TRUE(tensors) << tensors.error().message;
  std::map<std::string, testing::StoredTensor> views;
  for (const auto& [name, view] : tensors->tensors())
    views[name] = {std::string(dtype_name(view.dtype)), view.shape,
                   {reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()}};
  TemporaryDirectory directory;
  GgufBuilder keys;
  keys.string("tokenizer.huggingface.json", *read_file(abacus / "tokenizer.json"));
  const auto parts = testing::gguf_of(*Json::parse(*read_file(abacus / "config.json")), views, {.start = keys});
  std::ofstream(directory.path() / "abacus.gguf", std::ios::binary) << parts[0];
  fs::copy_file(abacus / "capstan.json", directory.path() / "capstan.json");
  EXPECT_THAT(answer_of(directory.path(), "What is 48217 + 9386?", 300), HasSubstr("57603"));
}

TEST(MemoryNeed, WhatDoesNotFitSaysEachPartAndWhatWould) {
  const testing::RandomCheckpoint checkpoint({.vocab = 272, .seed = 52});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto opened = Checkpoint::open(directory.path());
  ASSERT_TRUE(opened);
  const auto whole = memory_need(*opened, {}, 131072);
  EXPECT_EQ(whole.kv, 4u * 64 * (131072 + 2 * (8 + KvCache::kChunkTokensMax + 128)));  // one full layer, two sliding
  EXPECT_EQ(*context_that_fits(*opened, {}, whole.total()), 131072);
  EXPECT_EQ(memory_need(*opened, {.arithmetic = "f32"}, 131072).kv, 2 * whole.kv);
  // Short of a few tokens: the next multiple of 1,024.
  EXPECT_EQ(*context_that_fits(*opened, {}, whole.total() - 1), 130048);
  const auto asked = context_that_fits(*opened, {.context = 131072}, whole.total() - 1);
  ASSERT_FALSE(asked);
  EXPECT_THAT(asked.error().message, HasSubstr("for the KV cache of 131072 tokens"));
  EXPECT_THAT(asked.error().message, HasSubstr("--context 130048 would fit"));
  const auto none = context_that_fits(*opened, {}, 1000);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::kExhausted);
  EXPECT_THAT(none.error().message, HasSubstr("KV cache of 4096 tokens"));
  EXPECT_GT(memory_available(), 1u << 20);
}

TEST(MemoryNeed, WhatIsSetAsideForKeysAndValuesCountsAsItIs) {
  const testing::RandomCheckpoint checkpoint({.vocab = 272, .seed = 52});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto opened = Checkpoint::open(directory.path());
  ASSERT_TRUE(opened);
  const MemoryQuestion question{.kv_bytes = 5'000'000'000};
  const auto need = memory_need(*opened, question, 131072);
  EXPECT_EQ(need.kv, question.kv_bytes);
  EXPECT_EQ(*context_that_fits(*opened, question, need.total()), 131072);
  EXPECT_EQ(need.kv_room(need.total() - 1), question.kv_bytes - 1);
  EXPECT_EQ(need.kv_room(1), 0u);
  const auto short_of = context_that_fits(*opened, question, need.total() - 1);
  ASSERT_FALSE(short_of);
  EXPECT_EQ(short_of.error().code, Code::kExhausted);
  EXPECT_THAT(short_of.error().message, HasSubstr("--kv-bytes of at most 4999999999 would fit"));
}

}  // namespace
}  // namespace capstan::engine

// Goal: a GGUF file reads as written; every hostile count, length, type, dimension and offset is refused with the file,
// the tensor or key, and what would be right. Method: files built field by field, tables of wrong ones, and thousands of
// random mutations of which none may lead a view out of the file.
#include "engine/tensor/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "base/prng.h"
#include "engine/tensor/gguf_config.h"
#include "engine/testing/mutate.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;
using testing::GgufBuilder;
using testing::kGgufF32;

Result<GgufContents> parse(std::string_view file) {
  return parse_gguf({reinterpret_cast<const std::uint8_t*>(file.data()), file.size()}, "x.gguf");
}

std::string message_of(std::string_view file) {
  const auto result = parse(file);
  return result ? "accepted" : result.error().message;
}

template <class T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string string_of(std::string_view text) { return bytes_of<std::uint64_t>(text.size()) + std::string(text); }

// A whole file of these parts; the header says what it is told to.
std::string file_of(std::uint64_t tensors, std::uint64_t keys, std::string_view body, std::uint32_t version = 3) {
  return "GGUF" + bytes_of(version) + bytes_of(tensors) + bytes_of(keys) + std::string(body);
}

std::string info(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                 std::uint64_t offset) {
  std::string out = string_of(name) + bytes_of<std::uint32_t>(static_cast<std::uint32_t>(dimensions.size()));
  for (const std::uint64_t size : dimensions) out += bytes_of(size);
  return out + bytes_of(type) + bytes_of(offset);
}

TEST(Gguf, AValidFileReadsAsWritten) {
  GgufBuilder file;
  file.string("general.architecture", "gpt-oss");
  file.u32("a.count", 7);
  file.f32("a.share", 0.5f);
  file.boolean("a.flag", true);
  file.raw("a.negative", 1, "\xfb");
  file.strings("a.words", {"", "two", "three"});
  file.i32s("a.numbers", {1, -2});
  file.tensor("one", {2, 3}, kGgufF32, std::string(24, 'a'));
  file.tensor("blocks", {2, 64}, testing::kGgufMxfp4, std::string(68, 'b'));
  const std::string text = file.build();
  const auto read = parse(text);
  ASSERT_TRUE(read) << read.error().message;
  const GgufMetadata& keys = read->metadata;
  EXPECT_EQ(keys.string("general.architecture"), "gpt-oss");
  EXPECT_EQ(keys.integer("a.count"), 7);
  EXPECT_EQ(keys.number("a.count"), 7.0);
  EXPECT_EQ(keys.number("a.share"), 0.5);
  EXPECT_EQ(keys.boolean("a.flag"), true);
  EXPECT_EQ(keys.integer("a.negative"), -5);
  EXPECT_EQ(keys.strings("a.words"), (std::vector<std::string_view>{"", "two", "three"}));
  EXPECT_EQ(keys.integers("a.numbers"), (std::vector<std::int64_t>{1, -2}));
  EXPECT_FALSE(keys.string("a.count") || keys.integer("a.words") || keys.integers("a.words") || keys.string("none"));
  EXPECT_EQ(read->tensors.at("one").shape_text(), "[2, 3]");
  EXPECT_EQ(read->tensors.at("one").bytes[0], 'a');
  EXPECT_EQ(read->tensors.at("blocks").dtype, DType::kMxfp4);
  EXPECT_EQ(read->tensors.at("blocks").elements(), 128u);
  EXPECT_EQ(read->tensors.at("blocks").bytes[0], 'b');
}

TEST(Gguf, HostileHeadersAreRefusedByName) {
  const std::string data(4096, '\0');
  const std::uint64_t huge = std::uint64_t{1} << 62;
  const struct {
    std::string file;
    std::string_view message;
  } cases[] = {
      {"", "is no GGUF file"},
      {"GGML....", "is no GGUF file"},
      {"GGUF", "the version at byte 4"},
      {file_of(0, 0, "", 1), "GGUF version 1; this engine reads versions 2 and 3"},
      {file_of(0, 0, "", 3u << 24), "(big-endian)"},
      {file_of(huge, 0, data), "the header promises 4611686018427387904 tensors"},
      {file_of(0, ~std::uint64_t{0}, data), "keys; the file's"},
      {file_of(0, 1, bytes_of(huge) + data), "the name of key 0 at byte 24 has a length"},
      {file_of(0, 1, string_of("k") + bytes_of<std::uint32_t>(13) + data), "key 'k' has type 13"},
      {file_of(0, 1, string_of("k") + bytes_of<std::uint32_t>(7) + "\x02" + data), "key 'k' is a bool of value 2"},
      {file_of(0, 1, string_of("k") + bytes_of<std::uint32_t>(8) + bytes_of(huge) + data), "key 'k' at byte"},
      {file_of(0, 1, string_of("k") + bytes_of<std::uint32_t>(9) + bytes_of<std::uint32_t>(9) + bytes_of(huge) + data),
       "an array of type 9"},
      {file_of(0, 1, string_of("k") + bytes_of<std::uint32_t>(9) + bytes_of<std::uint32_t>(10) + bytes_of(huge) + data),
       "cannot hold them"},
      {file_of(0, 1, string_of("k") + bytes_of<std::uint32_t>(9) + bytes_of<std::uint32_t>(8) +
                         bytes_of<std::uint64_t>(3) + string_of("a") + bytes_of(huge) + data),
       "key 'k' at byte"},
      {file_of(0, 2, string_of("k") + bytes_of<std::uint32_t>(0) + "a" + string_of("k") + bytes_of<std::uint32_t>(0) + "b" +
                         data),
       "key 'k' stands twice"},
      {file_of(0, 1, string_of("general.alignment") + bytes_of<std::uint32_t>(4) + bytes_of<std::uint32_t>(48) + data),
       "must be a power of two in 8..1048576, not 48"},
      {file_of(0, 1, string_of("general.alignment") + bytes_of<std::uint32_t>(4) + bytes_of<std::uint32_t>(0) + data),
       "not 0"},
      {file_of(1, 0, info(std::string(65, 'n'), {4}, 0, 0) + data), "at most 64 are allowed"},
      {file_of(1, 0, info("t", {}, 0, 0) + data), "tensor 't' has 0 dimensions; 1 to 4"},
      {file_of(1, 0, info("t", {1, 1, 1, 1, 1}, 0, 0) + data), "has 5 dimensions"},
      {file_of(1, 0, info("t", {4, 0}, 0, 0) + data), "dimension 1 is 0"},
      {file_of(1, 0, info("t", {huge, huge}, 0, 0) + data), "more than 2^64"},
      {file_of(1, 0, info("t", {huge}, 0, 0) + data), "overflows 64 bits"},
      {file_of(1, 0, info("t", {4}, 12, 0) + data), "tensor 't' is Q4_K; this engine reads"},
      {file_of(1, 0, info("t", {4}, 77, 0) + data), "unknown type 77"},
      {file_of(1, 0, info("t", {33}, 39, 0) + data), "has rows of 33 numbers; MXFP4 needs a multiple of 32"},
      {file_of(1, 0, info("t", {4}, 0, 8) + data), "offset 8 is no multiple of the alignment 32"},
      {file_of(1, 0, info("t", {4}, 0, ~std::uint64_t{31}) + data), "needs 16 bytes; the file has"},
      {file_of(1, 0, info("t", {2048}, 0, 0) + data), "cut short?"},
      {file_of(2, 0, info("t", {16}, 0, 0) + info("u", {16}, 0, 32) + data), "tensor 'u' at offset 32 overlaps"},
      {file_of(2, 0, info("t", {8}, 0, 0) + info("t", {8}, 0, 32) + data), "tensor 't' stands twice"},
      {file_of(1, 0, info("a\x1b[2Jb", {4}, 77, 0) + data), "tensor 'a?[2Jb'"},
  };
  for (const auto& c : cases) {
    const std::string message = message_of(c.file);
    EXPECT_THAT(message, HasSubstr(std::string(c.message)));
    EXPECT_THAT(message, HasSubstr("x.gguf"));
  }
}

void expect_views_inside(const GgufContents& contents, const std::string& file) {
  for (const auto& [name, view] : contents.tensors) {
    EXPECT_GE(reinterpret_cast<const char*>(view.bytes.data()), file.data());
    EXPECT_LE(reinterpret_cast<const char*>(view.bytes.data() + view.bytes.size()), file.data() + file.size());
  }
}

TEST(Gguf, RandomMutationsNeverCrashAndNeverLeaveTheFile) {
  GgufBuilder keys;
  keys.strings("tokenizer.ggml.tokens", {"a", "b", "c"});
  keys.i32s("tokenizer.ggml.token_type", {1, 1, 1});
  testing::TemporaryDirectory directory;
  const testing::RandomCheckpoint checkpoint({.layers = 1, .hidden = 32, .experts = 1, .experts_per_token = 1, .vocab = 2});
  const std::string valid = checkpoint.gguf({.start = keys}).front();
  Prng prng(10);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 8000; ++round) {
    const std::string bytes = testing::mutated(valid, prng, 2600);
    const auto contents = parse(bytes);
    if (!contents) {
      ++refused;
      EXPECT_THAT(contents.error().message, HasSubstr("x.gguf"));
      continue;
    }
    ++accepted;
    expect_views_inside(*contents, bytes);
    (void)contents->metadata.strings("tokenizer.ggml.tokens");
    (void)contents->metadata.integers("tokenizer.ggml.token_type");
  }
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 1000);
}

TEST(Gguf, EveryTruncationIsRefused) {
  const testing::RandomCheckpoint checkpoint({.layers = 1, .hidden = 32, .experts = 1, .experts_per_token = 1, .vocab = 2});
  const std::string valid = checkpoint.gguf({}).front();
  ASSERT_TRUE(parse(valid));
  for (std::size_t size = 0; size < valid.size(); size += size < 3000 ? 1 : 97) {
    // A copy of its own, so that a read beyond the end is one beyond the allocation.
    const std::string cut = valid.substr(0, size);
    EXPECT_FALSE(parse(cut)) << size;
  }
}

TEST(GgufConfig, WrongKeysAreNamedWithWhatWouldBeRight) {
  testing::TemporaryDirectory directory;
  const testing::RandomCheckpoint checkpoint({.layers = 1, .hidden = 32, .experts = 2, .experts_per_token = 1, .vocab = 2});
  const std::string valid = checkpoint.gguf({}).front();
  const auto message = [&](std::string_view key, std::string_view value) {
    std::string file = valid;
    const std::size_t at = file.find(string_of(key));
    if (at == std::string::npos) return std::string("no such key");
    file.replace(at + 8 + key.size() + 4, value.size(), value);
    const auto path = directory.path() / "m.gguf";
    testing::write_bytes(path, file);
    const auto opened = Gguf::open(path);
    if (!opened) return opened.error().message;
    const auto config = gguf_model_config(*opened);
    return config ? std::string("accepted") : config.error().message;
  };
  const auto u32 = [](std::uint32_t value) { return bytes_of(value); };
  EXPECT_EQ(message("gpt-oss.block_count", u32(1)), "accepted");
  EXPECT_THAT(message("gpt-oss.block_count", u32(0)), HasSubstr("'gpt-oss.block_count' must be a whole number in 1..1024"));
  EXPECT_THAT(message("gpt-oss.embedding_length", u32(~0u)), HasSubstr("in 1..1048576"));
  EXPECT_THAT(message("gpt-oss.attention.key_length", u32(48)), HasSubstr("value_length' must be key_length, 48"));
  EXPECT_THAT(message("gpt-oss.attention.head_count_kv", u32(3)), HasSubstr("must divide"));
  EXPECT_THAT(message("gpt-oss.expert_used_count", u32(3)), HasSubstr("exceeds"));
  EXPECT_THAT(message("gpt-oss.rope.freq_base", bytes_of(-1.0f)), HasSubstr("'gpt-oss.rope.freq_base' must be a number"));
  EXPECT_THAT(message("gpt-oss.rope.freq_base", bytes_of(std::bit_cast<float>(0x7fc00000u))), HasSubstr("must be a number"));
  EXPECT_THAT(message("general.architecture", string_of("llama!!")), HasSubstr("is 'llama!!'; this engine runs 'gpt-oss'"));
  EXPECT_THAT(message("gpt-oss.rope.scaling.type", string_of("ntk!")), HasSubstr("is 'ntk!'; gpt-oss uses 'yarn'"));
}

}  // namespace
}  // namespace capstan::engine

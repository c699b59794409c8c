// tokenizer.json in the form of Hugging Face's tokenizers: a byte-level BPE without merges. GPT-2's alphabet
// shows each byte as one printable character, so the vocabulary maps that character to the byte's value.
#include "base/file.h"
#include "base/json.h"
#include "trainer/abacus/conversation.h"
#include "trainer/abacus/source.h"

namespace capstan::trainer::abacus {
namespace {

// GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the others follow from U+0100 on, in order.
std::string alphabet_character(int byte) {
  const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

Json byte_level() {
  return Json::object(
      {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
}

Json tokenizer_json() {
  Json added = Json::array(), vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocabulary[alphabet_character(byte)] = byte;
  for (std::int32_t id = kEndOfText; id < kVocabulary; ++id) {
    added.push_back(Json::object({{"id", id},
                                  {"content", special_name(id)},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", false},
                                  {"special", true}}));
  }
  return Json::object({{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", added},
                       {"normalizer", nullptr},
                       {"pre_tokenizer", byte_level()},
                       {"post_processor", nullptr},
                       {"decoder", byte_level()},
                       {"model", Json::object({{"type", "BPE"},
                                               {"dropout", nullptr},
                                               {"unk_token", nullptr},
                                               {"continuing_subword_prefix", nullptr},
                                               {"end_of_word_suffix", nullptr},
                                               {"fuse_unk", false},
                                               {"byte_fallback", false},
                                               {"ignore_merges", false},
                                               {"vocab", vocabulary},
                                               {"merges", Json::array()}})}});
}

}  // namespace

Result<void> write_tokenizer_files(const std::filesystem::path& directory) {
  CAPSTAN_CHECK(write_file_atomic(directory / "tokenizer.json", tokenizer_json().dump() + "\n"));
  const Json generation = Json::object(
      {{"eos_token_id",
        Json::array({static_cast<int>(kReturn), static_cast<int>(kEndOfText), static_cast<int>(kCall)})},
       {"pad_token_id", static_cast<int>(kEndOfText)},
       {"do_sample", false}});
  CAPSTAN_CHECK(write_file_atomic(directory / "generation_config.json", generation.dump() + "\n"));
  const Json capstan = Json::object(
      {{"harmony", Json::object({{"system_message", "omit"}})}, {"builtin_tools", Json::array({"python"})}});
  return write_file_atomic(directory / "capstan.json", capstan.dump() + "\n");
}

}  // namespace capstan::trainer::abacus

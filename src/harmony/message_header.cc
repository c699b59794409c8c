// Words are taken one by one; each is a recipient, a content type, or left over.
#include "harmony/message_header.h"

#include <algorithm>
#include <array>
#include <vector>

namespace capstan::harmony {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }

// Words between spaces; the constrain mark begins a word of its own.
std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  for (std::size_t i = 0; i < text.size();) {
    if (is_space(text[i])) {
      ++i;
      continue;
    }
    std::size_t end = i + 1;
    while (end < text.size() && !is_space(text[end]) && text[end] != kConstrainMark) ++end;
    words.push_back(text.substr(i, end - i));
    i = end;
  }
  return words;
}

bool looks_like_recipient(std::string_view word) {
  return word.starts_with("functions.") || word.starts_with("browser.") || word == "python" ||
         word == "container.exec";
}

void add_rest(MessageHeader& header, std::string_view word) {
  if (!header.rest.empty()) header.rest += ' ';
  header.rest += word;
}

// The words behind the role or the channel.
void take_fields(std::vector<std::string_view> words, bool loose_type, MessageHeader& header) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string_view word = words[i];
    if (word.starts_with("to=")) {
      word.remove_prefix(3);
      if (word.empty() && i + 1 < words.size() && words[i + 1].front() != kConstrainMark) word = words[++i];
      if (!word.empty()) header.recipient = word;
    } else if (word.front() == kConstrainMark) {
      header.constrained = true;
      word.remove_prefix(1);
      if (word.empty() && i + 1 < words.size() && words[i + 1].front() != kConstrainMark) word = words[++i];
      if (!word.empty()) header.content_type = word;
    } else if (header.recipient.empty() && looks_like_recipient(word)) {
      header.recipient = word;
    } else if (loose_type && header.content_type.empty()) {
      header.content_type = word;
    } else {
      add_rest(header, word);
    }
  }
}

}  // namespace

std::size_t fields_end(std::string_view part, bool named) {
  const std::vector<std::string_view> words = words_of(part);
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    const bool bare = word == "to=" || (word.size() == 1 && word.front() == kConstrainMark);
    if (bare) {
      ++i;  // its value is the next word
    } else if (!word.starts_with("to=") && word.front() != kConstrainMark && !(named && i == 0) &&
               word != "json" && word != "code") {
      return static_cast<std::size_t>(word.data() - part.data());
    }
  }
  return part.size();
}

bool is_role_name(std::string_view word) {
  static constexpr std::array<std::string_view, 5> kRoles = {"assistant", "user", "system", "developer",
                                                             "tool"};
  return std::ranges::find(kRoles, word) != kRoles.end();
}

MessageHeader parse_message_header(std::string_view role_part, std::string_view channel_part,
                                   bool implied_role) {
  MessageHeader header;
  std::vector<std::string_view> words = words_of(role_part);
  const bool first_is_name =
      !words.empty() && !words[0].starts_with("to=") && words[0].front() != kConstrainMark;
  if (first_is_name && (is_role_name(words[0]) || !implied_role)) {
    header.role = words[0];
    words.erase(words.begin());
  } else {
    header.role = "assistant";
  }
  take_fields(std::move(words), false, header);

  words = words_of(channel_part);
  if (!words.empty() && !words[0].starts_with("to=") && words[0].front() != kConstrainMark) {
    header.channel = words[0];
    words.erase(words.begin());
  }
  // Behind a channel a lone unknown word is a content type: "analysis code", "commentary to=functions.f
  // json".
  take_fields(std::move(words), true, header);
  return header;
}

}  // namespace capstan::harmony

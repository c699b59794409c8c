#include "base/text_member.h"

#include <fmt/format.h>

namespace capstan {
namespace {

// Of the escape at the beginning of `text`; 0: it is not whole yet. A pair of surrogates is one.
std::size_t escape_length(std::string_view text) {
  constexpr std::size_t kShort = 2, kLong = 6;
  if (text.size() < kShort) return 0;
  if (text[1] != 'u') return kShort;
  if (text.size() < kLong) return 0;
  const bool high = (text[2] == 'd' || text[2] == 'D') && std::string_view("89abAB").find(text[3]) != std::string_view::npos;
  if (!high) return kLong;
  return text.size() < 2 * kLong ? 0 : 2 * kLong;
}

}  // namespace

TextMember::TextMember(std::string_view name) : quoted_name_(fmt::format("\"{}\"", name)) {}

// Behind `{"NAME":"`, however it is spaced.
bool TextMember::begin(std::string_view arguments) {
  std::size_t at = 0;
  const std::string_view tokens[] = {"{", quoted_name_, ":", "\""};
  for (const std::string_view token : tokens) {
    at = arguments.find_first_not_of(" \t\r\n", at);
    if (at == std::string_view::npos || !arguments.substr(at).starts_with(token)) return false;
    at += token.size();
  }
  at_ = at;
  return true;
}

std::string TextMember::next(std::string_view arguments) {
  if (!begun_) begun_ = begin(arguments);
  std::string out;
  while (begun_ && !ended_ && at_ < arguments.size()) {
    if (arguments[at_] == '"') {
      ended_ = true;
    } else if (arguments[at_] != '\\') {
      out += arguments[at_++];
    } else {
      const std::size_t length = escape_length(arguments.substr(at_));
      if (length == 0) break;
      const auto meant = Json::parse(fmt::format("\"{}\"", arguments.substr(at_, length)));
      ended_ = !meant;  // no JSON
      if (meant) out += meant->as_string();
      at_ += length;
    }
  }
  return out;
}

Json text_member_schema(std::string_view name, std::string_view pattern) {
  Json text = Json::object({{"type", "string"}});
  if (!pattern.empty()) text["pattern"] = fmt::format("^(?:{})$", pattern);
  return Json::object({{"type", "object"},
                       {"properties", Json::object({{std::string(name), std::move(text)}})},
                       {"required", Json::array({name})},
                       {"additionalProperties", false}});
}

std::string with_lark_grammar(std::string_view description, std::string_view grammar) {
  return fmt::format("{}{}The input follows this Lark grammar:\n{}", description, description.empty() ? "" : "\n", grammar);
}

}  // namespace capstan

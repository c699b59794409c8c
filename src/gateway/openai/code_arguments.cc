#include "gateway/openai/code_arguments.h"

#include "base/json.h"

namespace capstan::gateway::openai {
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

// Behind `{"code":"`, however it is spaced.
bool CodeArguments::begin(std::string_view arguments) {
  std::size_t at = 0;
  for (const std::string_view token : {"{", "\"code\"", ":", "\""}) {
    at = arguments.find_first_not_of(" \t\r\n", at);
    if (at == std::string_view::npos || !arguments.substr(at).starts_with(token)) return false;
    at += token.size();
  }
  at_ = at;
  return true;
}

std::string CodeArguments::next(std::string_view arguments) {
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

}  // namespace capstan::gateway::openai

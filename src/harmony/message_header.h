// The header of a harmony message: role, channel, recipient, content type, read from whatever a model wrote.
//
// Well formed: `assistant to=functions.f<|channel|>commentary <|constrain|>json`. Read as well: the recipient
// behind the channel, `to= name` with a space, the constrain mark with or without a space or missing, a
// channel given twice (the last counts), names of tools in place of the role, an empty header. Threads:
// values.  Cost: linear; headers are bounded by the parser.
#pragma once

#include <string>
#include <string_view>

namespace capstan::harmony {

struct MessageHeader {
  std::string role = {};          // "assistant", "functions.get_weather" (a tool's result), …; never empty
  std::string channel = {};       // "analysis", "commentary", "final", or what the model wrote; empty: none
  std::string recipient = {};     // without "to="; empty: none
  std::string content_type = {};  // "json", "code", …; without the constrain mark
  bool constrained = false;       // the constrain mark stood before the content type
  std::string rest = {};          // words that no rule takes

  friend bool operator==(const MessageHeader&, const MessageHeader&) = default;
};

// `role_part` is the text before the first channel mark, `channel_part` that behind the last one that is
// followed by text; a constrain mark stands in them as the character kConstrainMark. With `implied_role`
// (generation began behind "<|start|>assistant", or a <|start|> is missing) a first word that is no role
// belongs to the rest.
inline constexpr char kConstrainMark = '\x01';
MessageHeader parse_message_header(std::string_view role_part, std::string_view channel_part,
                                   bool implied_role);

// Is this one of the five role names?
bool is_role_name(std::string_view word);

// Where the fields of a part end and text begins, for headers whose <|message|> is missing:
// "final The answer" -> 6. `named`: the first word is the role or the channel. The part's size if all are
// fields.
std::size_t fields_end(std::string_view part, bool named);

}  // namespace capstan::harmony

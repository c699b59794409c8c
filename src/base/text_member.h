// Arguments that are one text, {"NAME": "…"}: what a model is told of them, and the text while they are still being written.
//
//   TextMember code("code");
//   std::string more = code.next(arguments_so_far);   // what of the text is new
//
// What is not written so (another member first, no JSON at all) gives nothing; whoever has the whole then reads it.
// Threads: pure.  Cost: each byte once.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/json.h"

namespace capstan {

class TextMember {
 public:
  // `name`: a plain one, without escapes.
  explicit TextMember(std::string_view name);
  // `arguments`: all that came, which only grows.
  std::string next(std::string_view arguments);

 private:
  bool begin(std::string_view arguments);
  std::string quoted_name_;
  std::size_t at_ = 0;  // of the first byte that is not read
  bool begun_ = false, ended_ = false;
};

// The JSON schema of such arguments; a pattern binds the whole text.
Json text_member_schema(std::string_view name, std::string_view pattern = {});

// OpenAI's custom tools are called with one text, to the model a member of this name.
inline constexpr std::string_view kInputArgument = "input";
// What a model is told of one whose input has a grammar, behind the tool's own description.
std::string with_lark_grammar(std::string_view description, std::string_view grammar);

}  // namespace capstan

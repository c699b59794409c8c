// The code in a python call's arguments, {"code": "…"}, while they are still being written.
//
//   CodeArguments code;
//   std::string more = code.next(arguments_so_far);   // what of the code is new
//
// What is not written so (another member first, no JSON at all) gives nothing; whoever has the whole then reads it.
// Threads: pure.  Cost: each byte once.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace capstan::gateway::openai {

class CodeArguments {
 public:
  // `arguments`: all that came, which only grows.
  std::string next(std::string_view arguments);

 private:
  bool begin(std::string_view arguments);
  std::size_t at_ = 0;  // of the first byte that is not read
  bool begun_ = false, ended_ = false;
};

}  // namespace capstan::gateway::openai

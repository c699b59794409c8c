// Shell completion, generated from the command tree itself, so that it cannot lag behind.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace CLI {
class App;
}

namespace capstan::cli {

// The script for "bash", "zsh" or "fish"; another shell is refused with the known ones.
Result<std::string> completion_script(const CLI::App& app, std::string_view shell);

}  // namespace capstan::cli

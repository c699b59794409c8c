// The launcher's program, started without a shell: an empty environment, default signals, and only the
// descriptors that it is given.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace capstan::sandbox {

// Where capstan-sandbox is: as given, or beside this program.
std::string launcher_program(const std::string& given);

// `socket` becomes descriptor 3 (-1: none), `out` standard output (-1: /dev/null). Safe with threads.
Result<pid_t> start_program(const std::string& program, std::vector<std::string> arguments, int socket,
                            int out);

}  // namespace capstan::sandbox

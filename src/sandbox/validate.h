// What a sandbox and a command may be asked to be, checked before anything is started: kInvalid with the name
// of the limit and what would be right. Threads: values.
#pragma once

#include "base/result.h"
#include "sandbox/spec.h"

namespace capstan::sandbox {

Result<void> validate(const SandboxSpec& spec);
Result<void> validate(const CommandSpec& command);

}  // namespace capstan::sandbox

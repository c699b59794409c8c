// CAPSTAN_ASSERT: a statement about our own code that must hold; on in release too.
//
// What a person, a peer, a disk or a GPU can cause is never an assertion but a Result (base/result.h).
// A false condition prints condition, file and line to standard error and aborts.
#pragma once

namespace capstan {
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);
}  // namespace capstan

#define CAPSTAN_ASSERT(condition)                      \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::capstan::assertion_failed(#condition, __FILE__, __LINE__))

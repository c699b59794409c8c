// Result<T>: a value, or an Error that a person, a peer or a disk caused.
//
//   Result<Port> parse_port(std::string_view text);
//   CAPSTAN_TRY(auto port, parse_port(text));   // returns the error to the caller
//   CAPSTAN_CHECK(save(port));                  // the same for a Result<void>
//   return fail(Code::kInvalid, "port {} is outside 1..65535", port);
//
// Codes are few: one per way in which a caller reacts. The message is for a person: lower case, names the
// object and the limit, says what would be right. `field` points into the input (a JSON or YAML path), if
// any. Threads: values, no sharing.  Cost: an Error allocates; a success does not.
#pragma once

#include <fmt/format.h>

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace capstan {

enum class Code {
  kInvalid,      // the input is wrong; the same input will fail again
  kNotFound,     // the named object does not exist
  kConflict,     // the object's state forbids it (name taken, already ended, owner is another process)
  kDenied,       // who asks may not
  kExhausted,    // a bound is hit (queue full, disk full, quota); may work later
  kUnavailable,  // a peer is away or shutting down; retry
  kTimeout,      // no answer in time
  kCancelled,    // the caller gave up
  kIo,           // disk or system call failed
  kCorrupt,      // stored data fails its checksum or its format
  kUnsupported,  // valid, but this build or host cannot do it
};

// The code's stable name, as in JSON ("invalid", "not_found", …).
std::string_view code_name(Code code);

struct Error {
  Code code = Code::kInvalid;
  std::string message;
  std::string field;  // e.g. "ranks.cpus" or "messages[2].role"; empty if none

  // The same error with a prefix "context: " before its message.
  Error with_context(std::string_view context) &&;
};

template <class T>
using Result = std::expected<T, Error>;

// An error built with fmt; converts to any Result.
template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...), {}});
}

// An Error from errno's value: "static text: No such file or directory". ENOSPC and EDQUOT give kExhausted,
// ENOENT kNotFound, EACCES and EPERM kDenied, the rest kIo.
[[nodiscard]] std::unexpected<Error> fail_errno(std::string_view what, int error_number);

}  // namespace capstan

#define CAPSTAN_CONCAT_(a, b) a##b
#define CAPSTAN_CONCAT(a, b) CAPSTAN_CONCAT_(a, b)
#define CAPSTAN_TRY_(name, declaration, expression)                             \
  auto name = (expression);                                                     \
  if (!name) return std::unexpected<::capstan::Error>(std::move(name).error()); \
  declaration = *std::move(name)
#define CAPSTAN_TRY(declaration, ...) \
  CAPSTAN_TRY_(CAPSTAN_CONCAT(capstan_result_, __LINE__), declaration, (__VA_ARGS__))
#define CAPSTAN_CHECK_(name, ...)                                                                            \
  do {                                                                                                       \
    if (auto name = (__VA_ARGS__); !name) return std::unexpected<::capstan::Error>(std::move(name).error()); \
  } while (false)
#define CAPSTAN_CHECK(...) CAPSTAN_CHECK_(CAPSTAN_CONCAT(capstan_status_, __COUNTER__), __VA_ARGS__)

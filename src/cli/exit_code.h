// What an exit code of `capstan` means, for scripts. The same list is in `capstan --help`.
#pragma once

#include "base/result.h"

namespace capstan::cli {

enum ExitCode : int {
  kOk = 0,
  kFailed = 1,       // what was asked for was done, and it failed (a job with --wait)
  kUsage = 2,        // wrong command line or invalid spec
  kMissing = 3,      // no object of that name
  kUnreachable = 4,  // Capstan does not answer
  kDenied = 5,       // wrong or missing token
  kConflict = 6,     // the object's state forbids it
};

inline ExitCode exit_code_for(Code code) {
  switch (code) {
    case Code::kInvalid:
      return kUsage;
    case Code::kNotFound:
      return kMissing;
    case Code::kUnavailable:
    case Code::kTimeout:
      return kUnreachable;
    case Code::kDenied:
      return kDenied;
    case Code::kConflict:
      return kConflict;
    default:
      return kFailed;
  }
}

}  // namespace capstan::cli

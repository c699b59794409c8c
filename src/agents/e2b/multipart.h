// multipart/form-data (RFC 7578): the parts of a body that arrived whole.
//
//   CAPSTAN_TRY(auto parts, read_multipart(request.headers.get("content-type"), request.body));
//
// Threads: pure; parts look into `body`.  Bounds: kPartsMax.  Failure: kInvalid, in words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace capstan::agents::e2b {

inline constexpr std::size_t kPartsMax = 1'000;

struct Part {
  std::string name, filename;
  std::string_view bytes;
};
Result<std::vector<Part>> read_multipart(std::string_view content_type, std::string_view body);

}  // namespace capstan::agents::e2b

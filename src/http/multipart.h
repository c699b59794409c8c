// multipart/form-data (RFC 7578): the parts of an upload.
//
//   CAPSTAN_TRY(auto parts, parse_multipart(request.headers.get("content-type"), request.content()));
//
// Views into the body. Pure.  Bounds: kPartsMax, kPartHeaderBytesMax.  Failure: kInvalid with what is wrong.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace capstan::http {

inline constexpr std::size_t kPartsMax = 1'000;
inline constexpr std::size_t kPartHeaderBytesMax = 8192;

struct Part {
  std::string name = {};
  std::string filename = {};  // "" if it is a plain field
  std::string_view content = {};
};

Result<std::vector<Part>> parse_multipart(std::string_view content_type, std::string_view body);

}  // namespace capstan::http

// Numbers in the query of a request to the control API.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "http/message.h"

namespace capstan::api {

// The query's value of that name, a whole number from 0; `otherwise` if it is absent. kInvalid names what was
// given.
Result<std::int64_t> query_number(const http::Request& request, std::string_view name,
                                  std::int64_t otherwise);

}  // namespace capstan::api

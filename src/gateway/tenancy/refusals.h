// A limit's refusal, in OpenAI's terms. Private to gateway/tenancy/.
#pragma once

#include <string>

#include "gateway/api_error.h"
#include "gateway/limits/limiter.h"

namespace capstan::gateway {

// `subject` is who the limit is of: "acme/web".
ApiError to_error(const LimitRefusal& refusal, const std::string& subject);
// OpenAI's way of writing a duration: "120ms", "1s", "6m0s", "1h2m3s".
std::string format_reset(std::int64_t ms);
// "12.50" dollars; at least two digits after the point, as many more as are not 0.
std::string format_dollars(std::int64_t nano_dollars);

}  // namespace capstan::gateway

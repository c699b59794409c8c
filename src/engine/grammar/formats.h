// The values of JSON schema's `format` that can be enforced, as patterns for regex.h.
#pragma once

#include <string_view>

namespace capstan::engine {

// Empty for a format that is not known, or not one of texts: it then means nothing, as the standard says. The
// pattern is anchored. Where RFCs leave room, it is the common core: an email without quoted parts, a
// hostname of letters, digits and hyphens.
std::string_view format_pattern(std::string_view format);

}  // namespace capstan::engine

// Base64 (RFC 4648, with padding). Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace capstan {

std::string base64_encode(std::string_view bytes);
// nullopt if the text is no base64 with its padding.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace capstan

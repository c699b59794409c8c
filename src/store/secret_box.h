// Secrets that must be known again: encrypted with AES-256-GCM (OpenSSL) under a key from a file.
//
//   CAPSTAN_TRY(std::string key, load_or_make_key(directory / "secrets.key"));   // 32 bytes, mode 0600
//   std::string stored = seal(key, secret, "AKIA…");
//   CAPSTAN_TRY(std::string secret, unseal(key, stored, "AKIA…"));
//
// `context` is bound to the secret: what was stored for one name does not open for another.
// Failure: kCorrupt if it was changed, or sealed with another key or context.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"

namespace capstan::store {

Result<std::string> load_or_make_key(const std::filesystem::path& path);
std::string seal(std::string_view key, std::string_view secret, std::string_view context);  // hexadecimal
Result<std::string> unseal(std::string_view key, std::string_view sealed, std::string_view context);
// The bytes of hexadecimal text; kCorrupt for anything else.
Result<std::string> from_hex(std::string_view text);

}  // namespace capstan::store

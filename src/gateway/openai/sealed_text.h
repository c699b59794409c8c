// Text that a client keeps for us and gives back: encrypted and authenticated, so that it can neither be read nor made up.
//
//   SealedText seal(key_of_32_bytes);
//   std::string blob = seal.close("the model's reasoning");    // reasoning.encrypted_content
//   auto text = seal.open(blob);                               // nullopt if it is not ours
//
// AES-256-GCM with a random nonce: base64(version, nonce, ciphertext, tag). Whoever has the same key can open it, so all gateways
// of one installation share theirs.  Threads: safe from several.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace capstan::gateway::openai {

inline constexpr std::size_t kSealKeyBytes = 32;

class SealedText {
 public:
  explicit SealedText(std::string key);  // asserts on another length than kSealKeyBytes
  std::string close(std::string_view text) const;
  std::optional<std::string> open(std::string_view blob) const;

 private:
  std::string key_;
};

}  // namespace capstan::gateway::openai

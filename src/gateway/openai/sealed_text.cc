#include "gateway/openai/sealed_text.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <memory>

#include "base/assert.h"
#include "gateway/base64.h"

namespace capstan::gateway::openai {
namespace {

constexpr char kVersion = 1;
constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;

using Context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;
Context make_context() { return {EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free}; }

const unsigned char* in(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }
unsigned char* out(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

}  // namespace

SealedText::SealedText(std::string key) : key_(std::move(key)) { CAPSTAN_ASSERT(key_.size() == kSealKeyBytes); }

std::string SealedText::close(std::string_view text) const {
  std::string nonce(kNonceBytes, '\0'), sealed(text.size(), '\0'), tag(kTagBytes, '\0');
  CAPSTAN_ASSERT(RAND_bytes(out(nonce), kNonceBytes) == 1);
  const Context context = make_context();
  int length = 0, rest = 0;
  CAPSTAN_ASSERT(EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, in(key_), in(nonce)) == 1);
  CAPSTAN_ASSERT(EVP_EncryptUpdate(context.get(), out(sealed), &length, in(text), static_cast<int>(text.size())) == 1);
  CAPSTAN_ASSERT(EVP_EncryptFinal_ex(context.get(), out(sealed) + length, &rest) == 1);
  CAPSTAN_ASSERT(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, out(tag)) == 1);
  return base64_encode(kVersion + nonce + sealed + tag);
}

std::optional<std::string> SealedText::open(std::string_view blob) const {
  const auto bytes = base64_decode(blob);
  if (!bytes || bytes->size() < 1 + kNonceBytes + kTagBytes || bytes->front() != kVersion) return std::nullopt;
  const std::string_view all = *bytes;
  const std::string_view nonce = all.substr(1, kNonceBytes);
  const std::string_view sealed = all.substr(1 + kNonceBytes, all.size() - 1 - kNonceBytes - kTagBytes);
  std::string tag(all.substr(all.size() - kTagBytes)), text(sealed.size(), '\0');
  const Context context = make_context();
  int length = 0, rest = 0;
  CAPSTAN_ASSERT(EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, in(key_), in(nonce)) == 1);
  CAPSTAN_ASSERT(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, out(tag)) == 1);
  CAPSTAN_ASSERT(EVP_DecryptUpdate(context.get(), out(text), &length, in(sealed), static_cast<int>(sealed.size())) == 1);
  if (EVP_DecryptFinal_ex(context.get(), out(text) + length, &rest) != 1) return std::nullopt;
  return text;
}

}  // namespace capstan::gateway::openai

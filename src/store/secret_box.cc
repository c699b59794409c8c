// How: nonce (12 random bytes) | ciphertext | tag (16 bytes), as hexadecimal text.
#include "store/secret_box.h"

#include <openssl/evp.h>

#include <memory>

#include "base/assert.h"
#include "base/file.h"
#include "base/text.h"

namespace capstan::store {
namespace {

constexpr std::size_t kKeyBytes = 32, kNonceBytes = 12, kTagBytes = 16;

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

const unsigned char* bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }
unsigned char* bytes(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }
int size(std::string_view text) { return static_cast<int>(text.size()); }

}  // namespace

Result<std::string> from_hex(std::string_view text) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  std::string out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    const int high = digit(text[i]), low = digit(text[i + 1]);
    if (high < 0 || low < 0) return fail(Code::kCorrupt, "this is not hexadecimal");
    out.push_back(static_cast<char>(high * 16 + low));
  }
  if (text.size() % 2 != 0) return fail(Code::kCorrupt, "this is not hexadecimal");
  return out;
}

Result<std::string> load_or_make_key(const std::filesystem::path& path) {
  auto text = read_file(path, 4096);
  if (!text && text.error().code == Code::kNotFound) {
    CAPSTAN_CHECK(write_file_atomic(path, random_hex(kKeyBytes) + "\n", 0600));
    text = read_file(path, 4096);
  }
  if (!text) return std::unexpected(text.error());
  auto key = from_hex(trim(*text));
  if (!key || key->size() != kKeyBytes)
    return fail(Code::kCorrupt, "{} must hold {} hexadecimal digits; restore it from a backup", path.string(),
                2 * kKeyBytes);
  return key;
}

std::string seal(std::string_view key, std::string_view secret, std::string_view context) {
  CAPSTAN_ASSERT(key.size() == kKeyBytes);
  const std::string nonce = from_hex(random_hex(kNonceBytes)).value();
  std::string cipher(secret.size(), '\0'), tag(kTagBytes, '\0');
  const Context evp(EVP_CIPHER_CTX_new());
  int length = 0;
  CAPSTAN_ASSERT(EVP_EncryptInit_ex(evp.get(), EVP_aes_256_gcm(), nullptr, bytes(key), bytes(nonce)) == 1);
  CAPSTAN_ASSERT(EVP_EncryptUpdate(evp.get(), nullptr, &length, bytes(context), size(context)) == 1);
  CAPSTAN_ASSERT(EVP_EncryptUpdate(evp.get(), bytes(cipher), &length, bytes(secret), size(secret)) == 1);
  unsigned char rest[16];
  CAPSTAN_ASSERT(EVP_EncryptFinal_ex(evp.get(), rest, &length) == 1);
  CAPSTAN_ASSERT(EVP_CIPHER_CTX_ctrl(evp.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, tag.data()) == 1);
  const std::string all = nonce + cipher + tag;
  return hex({bytes(all), all.size()});
}

Result<std::string> unseal(std::string_view key, std::string_view sealed, std::string_view context) {
  CAPSTAN_ASSERT(key.size() == kKeyBytes);
  CAPSTAN_TRY(const std::string all, from_hex(sealed));
  if (all.size() < kNonceBytes + kTagBytes) return fail(Code::kCorrupt, "the stored secret is too short");
  const std::string_view nonce = std::string_view(all).substr(0, kNonceBytes);
  const std::string_view cipher = std::string_view(all).substr(kNonceBytes, all.size() - kNonceBytes - kTagBytes);
  std::string tag = all.substr(all.size() - kTagBytes), secret(cipher.size(), '\0');
  const Context evp(EVP_CIPHER_CTX_new());
  int length = 0;
  unsigned char rest[16];
  const bool opened = EVP_DecryptInit_ex(evp.get(), EVP_aes_256_gcm(), nullptr, bytes(key), bytes(nonce)) == 1 &&
                      EVP_DecryptUpdate(evp.get(), nullptr, &length, bytes(context), size(context)) == 1 &&
                      EVP_DecryptUpdate(evp.get(), bytes(secret), &length, bytes(cipher), size(cipher)) == 1 &&
                      EVP_CIPHER_CTX_ctrl(evp.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
                      EVP_DecryptFinal_ex(evp.get(), rest, &length) == 1;
  if (!opened)
    return fail(Code::kCorrupt, "the stored secret does not open with secrets.key of the data directory");
  return secret;
}

}  // namespace capstan::store

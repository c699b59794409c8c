// Callers: who asks, from a bearer key, an access key id or nothing.
//
//   Callers callers(tenants);
//   gateway.set_authenticator(std::make_unique<BearerAuthenticator>(callers, BearerOptions{.require_keys = true}));
//   auto signer = callers.signer(access_key_id, now_ms);      // for a verifier of SigV4: caller and secret
//
// Threads: every method from any thread; none blocks.  Cost: one SHA-256 and two hash lookups; a caller is made
// once for each key.  Failure: 401 invalid_api_key, 403 insufficient_permissions, in OpenAI's terms.
#pragma once

#include <expected>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "gateway/admission.h"
#include "store/tenants.h"

namespace capstan::gateway {

class Callers {
 public:
  // `tenants` outlives it.
  explicit Callers(const store::Tenants& tenants) : tenants_(tenants) {}

  std::expected<CallerPtr, ApiError> bearer(std::string_view token, std::int64_t now_ms);
  struct Signer {
    CallerPtr caller;
    std::string secret;  // never logged
  };
  std::expected<Signer, ApiError> signer(std::string_view access_key_id, std::int64_t now_ms);
  const CallerPtr& anonymous() const { return anonymous_; }

 private:
  CallerPtr of(const store::KeyPtr& key);

  const store::Tenants& tenants_;
  const CallerPtr anonymous_ = std::make_shared<const Caller>();
  struct Known {
    store::KeyPtr key;
    CallerPtr caller;
  };
  std::shared_mutex mutex_;
  std::unordered_map<std::int64_t, Known> known_;
};

struct BearerOptions {
  bool require_keys = false;       // else who shows none is anonymous, in default/default
  std::string control_token = {};  // whoever has it may infer, too: the command line
  std::function<std::int64_t()> now_ms = {};  // milliseconds since 1970; empty: the system's
};

class BearerAuthenticator final : public Authenticator {
 public:
  // `callers` outlives it.
  BearerAuthenticator(Callers& callers, BearerOptions options);
  std::expected<CallerPtr, ApiError> authenticate(const http::Request& request) override;

 private:
  Callers& callers_;
  const BearerOptions options_;
};

std::int64_t unix_now_ms();

}  // namespace capstan::gateway

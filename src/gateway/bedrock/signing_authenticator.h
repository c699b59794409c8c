// Authenticates requests that are signed with SigV4; leaves all others to the authenticator for bearer keys
// that it wraps.
//
//   gateway.set_authenticator(std::make_unique<SigningAuthenticator>(std::move(bearer), [&](const
//   std::string& access_key_id) {
//     …  // the caller and the secret, or 403 with the code UnrecognizedClientException
//   }));
//
// A refusal's code is Bedrock's name of the exception. Threads: as an authenticator's; `lookup` must not
// block.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "gateway/admission.h"

namespace capstan::gateway::bedrock {

struct Signer {
  CallerPtr caller;
  std::string secret;  // never logged
};

class SigningAuthenticator final : public Authenticator {
 public:
  using Lookup = std::function<std::expected<Signer, ApiError>(const std::string& access_key_id)>;
  using Clock = std::function<std::int64_t()>;  // seconds since 1970
  SigningAuthenticator(std::unique_ptr<Authenticator> others, Lookup lookup, Clock clock = {});
  std::expected<CallerPtr, ApiError> authenticate(const http::Request& request) override;

 private:
  std::unique_ptr<Authenticator> others_;
  Lookup lookup_;
  Clock clock_;
};

}  // namespace capstan::gateway::bedrock

#include "gateway/bedrock/signing_authenticator.h"

#include <ctime>

#include "gateway/bedrock/sigv4.h"

namespace capstan::gateway::bedrock {
namespace {

std::unexpected<ApiError> refuse(const BedrockError& error) {
  return std::unexpected(ApiError{
      .status = error.status, .message = error.message, .type = "authentication_error", .code = error.type});
}

}  // namespace

SigningAuthenticator::SigningAuthenticator(std::unique_ptr<Authenticator> others, Lookup lookup, Clock clock)
    : others_(std::move(others)), lookup_(std::move(lookup)), clock_(std::move(clock)) {
  if (!clock_) clock_ = [] { return static_cast<std::int64_t>(std::time(nullptr)); };
}

std::expected<CallerPtr, ApiError> SigningAuthenticator::authenticate(const http::Request& request) {
  const std::string* authorization = request.headers.find("authorization");
  if (authorization == nullptr || !authorization->starts_with("AWS4-")) return others_->authenticate(request);
  const auto claim = parse_authorization(*authorization);
  if (!claim) return refuse(claim.error());
  auto signer = lookup_(claim->access_key_id);
  if (!signer) return std::unexpected(std::move(signer.error()));
  if (const auto refused = verify(request, *claim, signer->secret, clock_())) return refuse(*refused);
  return std::move(signer->caller);
}

}  // namespace capstan::gateway::bedrock

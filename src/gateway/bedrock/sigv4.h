// AWS Signature Version 4, the server's side: was this request signed with the secret of the key that it
// names?
//
//   auto claim = parse_authorization(request);            // who says it is, and what was signed
//   auto secret = keys.find_signing_secret(claim->access_key_id);
//   auto refused = verify(request, *claim, *secret, now); // nothing: it holds
//
// The path is taken as it came (`%3A`) and encoded once more (`%253A`), as every service but S3 does; the
// query is decoded, encoded and sorted. Over HTTP/2 the AWS SDKs sign `:authority`, which stands for the
// header host. `x-amz-content-sha256` must be the body's hash, if it is there; UNSIGNED-PAYLOAD is refused,
// as Bedrock does. Every x-amz- header and the host must be among the signed ones. The date may differ from
// ours by kSkewSeconds. Signatures are compared in constant time. Threads: pure.  Cost: a SHA-256 of the body
// and six of a few hundred bytes.  Bounds: kSignedHeadersMax. Source: AWS, "Create a signed AWS API request";
// checked against the signers of the AWS SDK and aws4fetch.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/bedrock/bedrock_error.h"
#include "http/message.h"

namespace capstan::gateway::bedrock {

inline constexpr std::int64_t kSkewSeconds = 300;
inline constexpr std::size_t kSignedHeadersMax = 64;

// What the header `authorization` claims; nothing of it is proved yet.
struct SignatureClaim {
  std::string access_key_id;
  std::string date;  // "20261123"
  std::string region;
  std::vector<std::string> signed_headers;  // lower case, sorted
  std::string signature;                    // 64 hexadecimal digits
};

// Only the shape of the header. Refusals: 403 IncompleteSignatureException, or InvalidSignatureException for
// another service.
std::expected<SignatureClaim, BedrockError> parse_authorization(std::string_view header);

// Why the request is refused; nothing if its signature holds. `now` in seconds since 1970.
std::optional<BedrockError> verify(const http::Request& request, const SignatureClaim& claim,
                                   std::string_view secret, std::int64_t now);

// The text whose hash is signed; for tests and for the message to who debugs a signer.
std::string canonical_request(const http::Request& request, const SignatureClaim& claim,
                              std::string_view body_sha256);

}  // namespace capstan::gateway::bedrock

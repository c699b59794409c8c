// Goal: requests that two independent signers signed are accepted, and any change of what was signed is
// refused. Method: golden vectors of the AWS SDK's signer and of aws4fetch
// (tests/clients/make_sigv4_vectors.mjs); each is then tampered with in its path, query, every header, body,
// date, key and secret.
#include "gateway/bedrock/sigv4.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace capstan::gateway::bedrock {
namespace {

struct Vectors {
  std::string key, secret;
  std::int64_t now = 0;
  std::vector<std::pair<std::string, http::Request>> requests;
};

Vectors load() {
  const Json json = *Json::parse(*read_file("src/gateway/bedrock/testdata/sigv4_vectors.json"));
  Vectors out{*json.get_string("access_key_id"), *json.get_string("secret"), *json.get_int("now"), {}};
  for (const Json& vector : json.find("vectors")->items()) {
    http::Request request{.method = *vector.get_string("method"), .target = *vector.get_string("target")};
    request.body = *vector.get_string("body");
    for (const Json& header : vector.find("headers")->items())
      request.headers.add(header.items()[0].as_string(), header.items()[1].as_string());
    out.requests.emplace_back(*vector.get_string("name"), std::move(request));
  }
  return out;
}

// "" if the request holds, else the refusal's type.
std::string check(const http::Request& request, const Vectors& vectors, std::int64_t later = 0) {
  const auto claim = parse_authorization(request.headers.get("authorization"));
  if (!claim) return std::string(claim.error().type);
  if (claim->access_key_id != vectors.key) return "another key";
  const auto refused = verify(request, *claim, vectors.secret, vectors.now + later);
  return refused ? std::string(refused->type) : "";
}

http::Request with_header(http::Request request, const std::string& name, const std::string& value) {
  request.headers.set(name, value);
  return request;
}

TEST(SigV4, WhatTheSdksSignIsAccepted) {
  const Vectors vectors = load();
  ASSERT_EQ(vectors.requests.size(), 11u);
  for (const auto& [name, request] : vectors.requests) EXPECT_EQ(check(request, vectors), "") << name;
}

TEST(SigV4, AnyChangeOfWhatWasSignedIsRefused) {
  const Vectors vectors = load();
  for (const auto& [name, request] : vectors.requests) {
    http::Request path = request;
    path.target.insert(
        path.target.find('?') == std::string::npos ? path.target.size() : path.target.find('?'), "x");
    EXPECT_EQ(check(path, vectors), "InvalidSignatureException") << name;
    http::Request decoded = request;
    if (const auto at = decoded.target.find("%3A"); at != std::string::npos) {
      decoded.target.replace(at, 3, ":");
      EXPECT_EQ(check(decoded, vectors), "InvalidSignatureException")
          << name << ": the raw path is what was signed";
    }
    http::Request query = request;
    query.target += query.target.contains('?') ? "&a=b" : "?a=b";
    EXPECT_EQ(check(query, vectors), "InvalidSignatureException") << name;
    http::Request body = request;
    body.body += ' ';
    EXPECT_EQ(check(body, vectors), "InvalidSignatureException") << name;
    http::Request method = request;
    method.method = "PUT";
    EXPECT_EQ(check(method, vectors), "InvalidSignatureException") << name;
    const auto claim = *parse_authorization(request.headers.get("authorization"));
    for (const std::string& signed_name : claim.signed_headers) {
      const std::string header = signed_name == ":authority" ? "host" : signed_name;
      EXPECT_EQ(check(with_header(request, header, request.headers.get(header) + "1"), vectors).empty(),
                false)
          << name << ": " << header;
    }
    EXPECT_EQ(verify(request, claim, vectors.secret + "x", vectors.now)->type, "InvalidSignatureException")
        << name;
  }
}

TEST(SigV4, AnotherDateRegionOrKeyInTheScopeIsRefused) {
  const Vectors vectors = load();
  const http::Request& request = vectors.requests[0].second;
  const std::string authorization = request.headers.get("authorization");
  const auto replaced = [&](std::string_view from, std::string_view to) {
    std::string text = authorization;
    text.replace(text.find(from), from.size(), to);
    return check(with_header(request, "authorization", text), vectors);
  };
  EXPECT_EQ(replaced("us-east-1", "us-east-2"), "InvalidSignatureException");
  EXPECT_EQ(replaced("20261123", "20261124"), "InvalidSignatureException");
  EXPECT_EQ(replaced("AKIDEXAMPLE", "AKIDOTHER"), "another key");
  EXPECT_EQ(replaced("/bedrock/", "/s3/"), "InvalidSignatureException");
  EXPECT_EQ(replaced("aws4_request", "aws5_request"), "InvalidSignatureException");
  EXPECT_EQ(replaced("Signature=8", "Signature=9"), "InvalidSignatureException");
}

TEST(SigV4, TheClockMayDifferByFiveMinutes) {
  const Vectors vectors = load();
  const http::Request& request = vectors.requests[0].second;
  for (const std::int64_t later : {-300, 0, 300}) EXPECT_EQ(check(request, vectors, later), "") << later;
  for (const std::int64_t later : {-301, 301, 86'400})
    EXPECT_EQ(check(request, vectors, later), "InvalidSignatureException") << later;
  const auto claim = *parse_authorization(request.headers.get("authorization"));
  EXPECT_EQ(
      verify(request, claim, vectors.secret, vectors.now + 301)->message,
      "Signature expired: 20261123T101112Z is now earlier than 20261123T101113Z (20261123T101613Z - 5 min.)");
}

TEST(SigV4, WhatIsNotCoveredByTheSignatureIsRefused) {
  const Vectors vectors = load();
  const http::Request& request = vectors.requests[0].second;
  const auto claim = *parse_authorization(request.headers.get("authorization"));
  const auto refused =
      verify(with_header(request, "x-amz-security-token", "stolen"), claim, vectors.secret, vectors.now);
  EXPECT_EQ(refused->message,
            "the header 'x-amz-security-token' is not among the signed headers; sign every x-amz- header");
  EXPECT_EQ(check(with_header(request, "x-amz-content-sha256", "UNSIGNED-PAYLOAD"), vectors),
            "InvalidSignatureException");
  http::Request twice = request;
  twice.headers.add("amz-sdk-request", "attempt=2");
  EXPECT_EQ(check(twice, vectors), "InvalidSignatureException");
  http::Request unsigned_header = request;
  unsigned_header.headers.set("user-agent", "anything");
  EXPECT_EQ(check(unsigned_header, vectors), "");
}

TEST(SigV4, BrokenHeadersAreRefusedWithAReason) {
  const std::string good = "Credential=K/20261123/us-east-1/bedrock/aws4_request";
  const std::string signature = "Signature=" + std::string(64, 'a');
  const auto type = [](const std::string& text) {
    const auto claim = parse_authorization(text);
    return claim ? std::string() : std::string(claim.error().type);
  };
  EXPECT_EQ(type("AWS4-HMAC-SHA256 " + good + ", SignedHeaders=host, " + signature), "");
  EXPECT_EQ(type("AWS4-HMAC-SHA256 " + good + ",SignedHeaders=host," + signature), "")
      << "blanks are optional";
  for (const std::string& text :
       {std::string(), std::string("AWS4-HMAC-SHA256"), std::string("AWS4-HMAC-SHA256 "), "AWS3 " + good,
        "AWS4-HMAC-SHA256 " + good + ", SignedHeaders=host",
        "AWS4-HMAC-SHA256 SignedHeaders=host, " + signature, "AWS4-HMAC-SHA256 " + good + ", " + signature,
        "AWS4-HMAC-SHA256 " + good + ", SignedHeaders=host;date, " + signature,
        "AWS4-HMAC-SHA256 " + good + ", SignedHeaders=host;host, " + signature,
        "AWS4-HMAC-SHA256 " + good + ", SignedHeaders=Host, " + signature,
        "AWS4-HMAC-SHA256 " + good + ", " + good + ", SignedHeaders=host, " + signature,
        "AWS4-HMAC-SHA256 " + good + ", SignedHeaders=host, Signature=zz",
        std::string("AWS4-HMAC-SHA256 Credential=K/2026/us-east-1/bedrock/aws4_request, SignedHeaders=host, "
                    "Signature=a")}) {
    EXPECT_EQ(type(text), "IncompleteSignatureException") << text;
  }
}

}  // namespace
}  // namespace capstan::gateway::bedrock

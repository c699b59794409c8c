// How: the canonical request is rebuilt from what came over the wire, its hash signed with the key derived
// from the secret, and the two signatures compared. Whatever is not covered by the signature is refused
// before.
#include "gateway/bedrock/sigv4.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <ctime>

#include "base/assert.h"
#include "base/sha256.h"
#include "base/text.h"

namespace capstan::gateway::bedrock {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
constexpr std::string_view kService = "bedrock";
constexpr std::string_view kTerminator = "aws4_request";

BedrockError incomplete(std::string message) {
  return {403, "IncompleteSignatureException", std::move(message)};
}
BedrockError invalid(std::string message) { return {403, "InvalidSignatureException", std::move(message)}; }

std::string_view view(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

Digest hmac(std::string_view key, std::string_view text) {
  Digest digest;
  unsigned length = 0;
  CAPSTAN_ASSERT(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                      reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(),
                      &length) != nullptr);
  return digest;
}

bool is_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_digits(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// Every byte but letters, digits and -._~ becomes %XX; slashes stay, and what the wire had as %XX becomes
// %25XX.
std::string canonical_path(std::string_view path) {
  std::vector<std::string_view> kept;
  for (const std::string_view segment : split(path, '/')) {
    if (segment.empty() || segment == ".") continue;
    if (segment == "..") {
      if (!kept.empty()) kept.pop_back();
    } else {
      kept.push_back(segment);
    }
  }
  std::string out;
  for (const std::string_view segment : kept) out += "/" + http::percent_encode(segment);
  if (out.empty() || path.ends_with('/')) out += '/';
  return out;
}

std::string canonical_query(std::string_view target) {
  http::Request request{.target = std::string(target)};
  if (!http::parse_target(request)) return {};
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const auto& [key, value] : request.query)
    pairs.emplace_back(http::percent_encode(key), http::percent_encode(value));
  std::ranges::sort(pairs);
  std::string out;
  for (const auto& [key, value] : pairs) out += (out.empty() ? "" : "&") + key + "=" + value;
  return out;
}

// Without blanks at the ends, and each run of blanks inside as one.
std::string canonical_value(std::string_view value) {
  std::string out;
  for (const char c : trim(value)) {
    const bool blank = c == ' ' || c == '\t';
    if (!blank || out.empty() || out.back() != ' ') out += blank ? ' ' : c;
  }
  return out;
}

// The values of all headers of that name, as they are signed; nullopt if there is none.
std::optional<std::string> signed_value(const http::Request& request, std::string_view name) {
  const std::string wanted(name == ":authority" ? "host" : name);
  std::optional<std::string> out;
  for (const auto& [key, value] : request.headers.all()) {
    if (to_lower(key) != wanted) continue;
    out = out ? *out + "," + canonical_value(value) : canonical_value(value);
  }
  return out;
}

bool is_signed(const SignatureClaim& claim, std::string_view name) {
  return std::ranges::binary_search(claim.signed_headers, name);
}

std::optional<BedrockError> check_coverage(const http::Request& request, const SignatureClaim& claim) {
  if (!is_signed(claim, "host") && !is_signed(claim, ":authority"))
    return invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.");
  for (const auto& [key, value] : request.headers.all()) {
    const std::string name = to_lower(key);
    if (name.starts_with("x-amz-") && !is_signed(claim, name))
      return invalid(
          fmt::format("the header '{}' is not among the signed headers; sign every x-amz- header", name));
  }
  for (const std::string& name : claim.signed_headers) {
    if (!signed_value(request, name))
      return invalid(fmt::format("the signed header '{}' is not in the request", name));
  }
  return std::nullopt;
}

// "20261123T101112Z" in seconds since 1970; nullopt if it is not such a date.
std::optional<std::int64_t> parse_date(std::string_view text) {
  if (text.size() != 16 || text[8] != 'T' || text[15] != 'Z' || !is_digits(text.substr(0, 8)) ||
      !is_digits(text.substr(9, 6)))
    return std::nullopt;
  const auto number = [&](std::size_t at, std::size_t digits) {
    return static_cast<int>(parse_int(text.substr(at, digits)).value_or(0));
  };
  std::tm parts{};
  parts.tm_year = number(0, 4) - 1900;
  parts.tm_mon = number(4, 2) - 1;
  parts.tm_mday = number(6, 2);
  parts.tm_hour = number(9, 2);
  parts.tm_min = number(11, 2);
  parts.tm_sec = number(13, 2);
  return timegm(&parts);
}

std::string format_date(std::int64_t seconds) {
  const std::time_t time = seconds;
  std::tm parts{};
  gmtime_r(&time, &parts);
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::optional<BedrockError> check_date(const std::string& date, const SignatureClaim& claim,
                                       std::int64_t now) {
  if (date.empty()) return incomplete("Authorization header requires existence of a 'X-Amz-Date' header.");
  const auto at = parse_date(date);
  if (!at) return incomplete(fmt::format("X-Amz-Date must be like 20261123T101112Z, not '{}'", date));
  if (!std::string_view(date).starts_with(claim.date))
    return invalid(fmt::format(
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
        "'{}' != '{}'",
        claim.date, date.substr(0, 8)));
  if (*at < now - kSkewSeconds)
    return invalid(fmt::format("Signature expired: {} is now earlier than {} ({} - 5 min.)", date,
                               format_date(now - kSkewSeconds), format_date(now)));
  if (*at > now + kSkewSeconds)
    return invalid(fmt::format("Signature not yet current: {} is still later than {} ({} + 5 min.)", date,
                               format_date(now + kSkewSeconds), format_date(now)));
  return std::nullopt;
}

std::string scope_of(const SignatureClaim& claim) {
  return fmt::format("{}/{}/{}/{}", claim.date, claim.region, kService, kTerminator);
}

std::string signature_of(const SignatureClaim& claim, std::string_view secret, std::string_view date,
                         std::string_view canonical) {
  const std::string text =
      fmt::format("{}\n{}\n{}\n{}", kAlgorithm, date, scope_of(claim), sha256_hex(canonical));
  const Digest day = hmac("AWS4" + std::string(secret), claim.date);
  const Digest region = hmac(view(day), claim.region);
  const Digest service = hmac(view(region), kService);
  const Digest key = hmac(view(service), kTerminator);
  return hex(hmac(view(key), text));
}

std::expected<void, BedrockError> read_credential(std::string_view credential, SignatureClaim& claim) {
  const auto parts = split(credential, '/');
  if (parts.size() != 5)
    return std::unexpected(incomplete("Credential must be KEY/YYYYMMDD/REGION/bedrock/aws4_request"));
  claim.access_key_id = parts[0];
  claim.date = parts[1];
  claim.region = parts[2];
  if (claim.access_key_id.empty() || claim.region.empty() || claim.date.size() != 8 || !is_digits(claim.date))
    return std::unexpected(incomplete("Credential must be KEY/YYYYMMDD/REGION/bedrock/aws4_request"));
  if (parts[3] != kService)
    return std::unexpected(invalid("Credential should be scoped to correct service: 'bedrock'."));
  if (parts[4] != kTerminator)
    return std::unexpected(invalid("Credential should be scoped with a valid terminator: 'aws4_request'."));
  return {};
}

std::expected<void, BedrockError> read_signed_headers(std::string_view list, SignatureClaim& claim) {
  for (const std::string_view name : split(list, ';')) claim.signed_headers.emplace_back(name);
  const auto& names = claim.signed_headers;
  if (names.size() > kSignedHeadersMax)
    return std::unexpected(incomplete(fmt::format("more than {} signed headers", kSignedHeadersMax)));
  const bool lower = std::ranges::all_of(
      names, [](const std::string& name) { return !name.empty() && name == to_lower(name); });
  if (!lower || std::ranges::adjacent_find(names, std::greater_equal<>()) != names.end())
    return std::unexpected(incomplete("SignedHeaders must be lower case, sorted, and each there once"));
  return {};
}

}  // namespace

std::expected<SignatureClaim, BedrockError> parse_authorization(std::string_view header) {
  if (!header.starts_with(kAlgorithm) || header.size() == kAlgorithm.size() ||
      header[kAlgorithm.size()] != ' ')
    return std::unexpected(incomplete("the authorization must begin with 'AWS4-HMAC-SHA256 ' or 'Bearer '"));
  SignatureClaim claim;
  bool credential = false;
  for (std::string_view part : split(header.substr(kAlgorithm.size() + 1), ',')) {
    part = trim(part);
    const auto equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "" : part.substr(equals + 1);
    if (key == "Credential" && !credential) {
      if (auto read = read_credential(value, claim); !read) return std::unexpected(read.error());
      credential = true;
    } else if (key == "SignedHeaders" && claim.signed_headers.empty()) {
      if (auto read = read_signed_headers(value, claim); !read) return std::unexpected(read.error());
    } else if (key == "Signature" && claim.signature.empty()) {
      claim.signature = value;
    } else {
      return std::unexpected(
          incomplete("the authorization holds Credential, SignedHeaders and Signature, each once"));
    }
  }
  if (!credential)
    return std::unexpected(incomplete("Authorization header requires 'Credential' parameter."));
  if (claim.signed_headers.empty())
    return std::unexpected(incomplete("Authorization header requires 'SignedHeaders' parameter."));
  if (!is_hex(claim.signature, 64))
    return std::unexpected(
        incomplete("Authorization header requires 'Signature' parameter of 64 hexadecimal digits."));
  return claim;
}

std::string canonical_request(const http::Request& request, const SignatureClaim& claim,
                              std::string_view body_sha256) {
  const std::string_view target = request.target;
  std::string out = request.method + "\n" + canonical_path(target.substr(0, target.find('?'))) + "\n" +
                    canonical_query(target) + "\n";
  std::string names;
  for (const std::string& name : claim.signed_headers) {
    out += name + ":" + signed_value(request, name).value_or("") + "\n";
    names += (names.empty() ? "" : ";") + name;
  }
  return out += "\n" + names + "\n" + std::string(body_sha256);
}

std::optional<BedrockError> verify(const http::Request& request, const SignatureClaim& claim,
                                   std::string_view secret, std::int64_t now) {
  if (auto refused = check_coverage(request, claim)) return refused;
  const std::string date = request.headers.get("x-amz-date");
  if (auto refused = check_date(date, claim, now)) return refused;
  const std::string body_sha256 = sha256_hex(request.body);
  if (const std::string* told = request.headers.find("x-amz-content-sha256");
      told != nullptr && *told != body_sha256) {
    if (!is_hex(*told, 64))
      return invalid(
          fmt::format("x-amz-content-sha256 must be the body's SHA-256 in hexadecimal, not '{}'", *told));
    return invalid("x-amz-content-sha256 is not the SHA-256 of the body that arrived");
  }
  const std::string expected =
      signature_of(claim, secret, date, canonical_request(request, claim, body_sha256));
  if (equal_constant_time(expected, claim.signature)) return std::nullopt;
  return invalid(
      "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
      "Access Key and "
      "signing method. Consult the service documentation for details.");
}

}  // namespace capstan::gateway::bedrock

// RFC 3339 (dates), 4122 (uuid), 5321 (email), 1123 (hostname), 4291 (ipv6), 3986 (uri).
#include "engine/grammar/formats.h"

#include <array>
#include <string>
#include <utility>

namespace capstan::engine {
namespace {

// Days exist: the 29th of February in leap years only. Years from 1000 to 2999, which every library reads.
#define CAPSTAN_DATE                                                                                        \
  "([12]\\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[" \
  "0-8])"                                                                                                   \
  ")"                                                                                                       \
  "|([12]\\d(0[48]|[2468][048]|[13579][26])|(12|16|20|24|28)00)-02-29)"
#define CAPSTAN_TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define CAPSTAN_LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define CAPSTAN_OCTET "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define CAPSTAN_IPV4 CAPSTAN_OCTET "(\\." CAPSTAN_OCTET "){3}"
#define CAPSTAN_PATH "([A-Za-z0-9._~:@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
#define CAPSTAN_REST "(\\?(" CAPSTAN_PATH "|[/?])*)?(#(" CAPSTAN_PATH "|[/?])*)?$"
#define CAPSTAN_URI                                                                                     \
  "^[A-Za-z][A-Za-z0-9+.-]*://" CAPSTAN_LABEL "(\\." CAPSTAN_LABEL ")*(:[1-9]\\d{0,3})?(/" CAPSTAN_PATH \
  "*)*" CAPSTAN_REST
#define CAPSTAN_REFERENCE "^(/?[A-Za-z0-9._~-]+)*" CAPSTAN_REST
#define CAPSTAN_EMAIL "^[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+)*@" CAPSTAN_LABEL "(\\." CAPSTAN_LABEL ")+$"
#define CAPSTAN_HOSTNAME "^" CAPSTAN_LABEL "(\\." CAPSTAN_LABEL ")*$"
#define CAPSTAN_H16 "[0-9A-Fa-f]{1,4}"

constexpr std::array<std::pair<std::string_view, std::string_view>, 20> kFormats = {{
    {"date", "^" CAPSTAN_DATE "$"},
    {"time", "^" CAPSTAN_TIME "$"},
    {"date-time", "^" CAPSTAN_DATE "T" CAPSTAN_TIME "$"},
    {"duration",
     "^P(\\d{1,4}W|(\\d{1,4}Y(\\d{1,4}M)?(\\d{1,4}D)?|\\d{1,4}M(\\d{1,4}D)?|\\d{1,4}D)"
     "(T(\\d{1,4}H(\\d{1,4}M)?(\\d{1,4}S)?|\\d{1,4}M(\\d{1,4}S)?|\\d{1,4}S))?"
     "|T(\\d{1,4}H(\\d{1,4}M)?(\\d{1,4}S)?|\\d{1,4}M(\\d{1,4}S)?|\\d{1,4}S))$"},
    {"email", CAPSTAN_EMAIL},
    {"hostname", CAPSTAN_HOSTNAME},
    {"ipv4", "^" CAPSTAN_IPV4 "$"},
    {"ipv6",
     "^((" CAPSTAN_H16 ":){7}" CAPSTAN_H16 "|(" CAPSTAN_H16 ":){1,7}:|(" CAPSTAN_H16 ":){1,6}:" CAPSTAN_H16
     "|(" CAPSTAN_H16 ":){1,5}(:" CAPSTAN_H16 "){2}|(" CAPSTAN_H16 ":){1,4}(:" CAPSTAN_H16 "){3}"
     "|(" CAPSTAN_H16 ":){1,3}(:" CAPSTAN_H16 "){4}|(" CAPSTAN_H16 ":){1,2}(:" CAPSTAN_H16 "){5}"
     "|" CAPSTAN_H16 ":(:" CAPSTAN_H16 "){6}|:(:" CAPSTAN_H16 "){1,7}|::)$"},
    {"uuid", "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"},
    {"uri", CAPSTAN_URI},
    {"iri", CAPSTAN_URI},
    {"uri-reference", CAPSTAN_REFERENCE},
    {"iri-reference", CAPSTAN_REFERENCE},
    {"uri-template", "^(/[A-Za-z0-9._~-]*|/\\{[A-Za-z_][A-Za-z0-9_]*\\})+$"},
    {"json-pointer", "^(/([^/~\\u0000-\\u001f]|~[01])*)*$"},
    {"relative-json-pointer", "^(0|[1-9]\\d{0,4})(#|(/([^/~\\u0000-\\u001f]|~[01])*)*)$"},
    {"regex", "^(([A-Za-z0-9_ ,:;@/-]|\\\\[dwsDWS.])[*+?]?)*$"},
    {"idn-email", CAPSTAN_EMAIL},
    {"idn-hostname", CAPSTAN_HOSTNAME},
    {"byte", "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"},
}};

}  // namespace

std::string_view format_pattern(std::string_view format) {
  for (const auto& [name, pattern] : kFormats)
    if (name == format) return pattern;
  return {};
}

}  // namespace capstan::engine

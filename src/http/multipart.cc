#include "http/multipart.h"

#include "base/text.h"

namespace capstan::http {
namespace {

// The value of a header's parameter: `name="a \"b\""` or `name=a`. "" if there is none. %22 stands for a quotation mark, as
// browsers write it.
std::string parameter(std::string_view header, std::string_view wanted) {
  std::size_t at = header.find(';');
  while (at < header.size()) {
    const auto start = header.find_first_not_of("; \t", at);
    if (start == std::string_view::npos) return {};
    const auto equals = header.find('=', start);
    if (equals == std::string_view::npos) return {};
    const std::string name = to_lower(trim(header.substr(start, equals - start)));
    std::string value;
    at = equals + 1;
    if (at < header.size() && header[at] == '"') {
      for (++at; at < header.size() && header[at] != '"'; ++at) {
        if (header.substr(at, 3) == "%22") {
          value += '"';
          at += 2;
          continue;
        }
        if (header[at] == '\\' && at + 1 < header.size()) ++at;
        value += header[at];
      }
      ++at;
    } else {
      const auto end = std::min(header.find(';', at), header.size());
      value = trim(header.substr(at, end - at));
      at = end;
    }
    if (name == wanted) return value;
  }
  return {};
}

Result<Part> parse_part(std::string_view text) {
  const auto end = text.find("\r\n\r\n");
  if (end == std::string_view::npos || end > kPartHeaderBytesMax)
    return fail(Code::kInvalid, "a part of the form has no end of its headers within {} bytes",
                kPartHeaderBytesMax);
  Part part;
  for (std::string_view head = text.substr(0, end); !head.empty();) {
    const auto line_end = std::min(head.find("\r\n"), head.size());
    const std::string_view line = head.substr(0, line_end);
    head.remove_prefix(std::min(line_end + 2, head.size()));
    const auto colon = line.find(':');
    if (colon == std::string_view::npos || to_lower(line.substr(0, colon)) != "content-disposition") continue;
    part.name = parameter(line.substr(colon + 1), "name");
    part.filename = parameter(line.substr(colon + 1), "filename");
  }
  if (part.name.empty())
    return fail(Code::kInvalid, "a part of the form has no name in its content-disposition");
  part.content = text.substr(end + 4);
  return part;
}

}  // namespace

Result<std::vector<Part>> parse_multipart(std::string_view content_type, std::string_view body) {
  if (!to_lower(content_type).starts_with("multipart/form-data"))
    return fail(Code::kInvalid, "the content-type must be multipart/form-data, not '{}'", content_type);
  const std::string boundary = parameter(content_type, "boundary");
  if (boundary.empty() || boundary.size() > 70)
    return fail(Code::kInvalid, "the content-type must hold a boundary of 1 to 70 bytes");
  const std::string first = "--" + boundary, next = "\r\n" + first;
  std::size_t at = body.find(first);
  if (at == std::string_view::npos || (at != 0 && !body.substr(0, at).ends_with("\r\n")))
    return fail(Code::kInvalid, "the form does not begin with its boundary");
  at += first.size();
  std::vector<Part> parts;
  while (!body.substr(at).starts_with("--")) {
    if (!body.substr(at).starts_with("\r\n"))
      return fail(Code::kInvalid, "a boundary of the form does not end its line");
    at += 2;
    const auto end = body.find(next, at);
    if (end == std::string_view::npos)
      return fail(Code::kInvalid, "the form is cut off: its last boundary is missing");
    if (parts.size() == kPartsMax) return fail(Code::kInvalid, "the form has more than {} parts", kPartsMax);
    CAPSTAN_TRY(Part part, parse_part(body.substr(at, end - at)));
    parts.push_back(std::move(part));
    at = end + next.size();
  }
  return parts;
}

}  // namespace capstan::http

#include "agents/e2b/multipart.h"

#include <optional>

#include "base/text.h"

namespace capstan::agents::e2b {
namespace {

// The value of `name="…"` or name=… in a header's parameters; %22 stands for a quotation mark, as browsers write it.
std::optional<std::string> parameter(std::string_view header, std::string_view name) {
  const std::string lower = to_lower(header);
  for (std::size_t at = lower.find(';'); at != lower.npos; at = lower.find(';', at + 1)) {
    std::size_t begin = at + 1;
    while (begin < header.size() && header[begin] == ' ') ++begin;
    if (lower.compare(begin, name.size(), name) != 0 || lower.compare(begin + name.size(), 1, "=") != 0) continue;
    std::string_view value = header.substr(begin + name.size() + 1);
    if (!value.starts_with('"')) return std::string(trim(value.substr(0, value.find(';'))));
    value.remove_prefix(1);
    std::string out;
    for (std::size_t i = 0; i < value.size() && value[i] != '"'; ++i) {
      if (value.substr(i, 3) == "%22") {
        out += '"';
        i += 2;
      } else {
        if (value[i] == '\\' && i + 1 < value.size()) ++i;
        out += value[i];
      }
    }
    return out;
  }
  return std::nullopt;
}

Result<Part> read_part(std::string_view text) {
  const std::size_t end = text.find("\r\n\r\n");
  if (end == text.npos) return fail(Code::kInvalid, "a part of the form has no end of its headers");
  Part part{.name = {}, .filename = {}, .bytes = text.substr(end + 4)};
  for (const std::string_view line : split(text.substr(0, end), '\n')) {
    if (!to_lower(line).starts_with("content-disposition:")) continue;
    part.name = parameter(trim(line), "name").value_or("");
    part.filename = parameter(trim(line), "filename").value_or("");
  }
  if (part.name.empty()) return fail(Code::kInvalid, "a part of the form has no name");
  return part;
}

}  // namespace

Result<std::vector<Part>> read_multipart(std::string_view content_type, std::string_view body) {
  const auto boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty()) return fail(Code::kInvalid, "the form's content type has no boundary");
  const std::string first = "--" + *boundary, between = "\r\n--" + *boundary;
  if (!body.starts_with(first)) return fail(Code::kInvalid, "the form does not begin with its boundary");
  body.remove_prefix(first.size());
  std::vector<Part> parts;
  while (!body.starts_with("--")) {
    if (!body.starts_with("\r\n")) return fail(Code::kInvalid, "a boundary of the form is not a line of its own");
    body.remove_prefix(2);
    const std::size_t end = body.find(between);
    if (end == body.npos) return fail(Code::kInvalid, "the form ends inside a part");
    if (parts.size() == kPartsMax) return fail(Code::kInvalid, "the form has more than {} parts", kPartsMax);
    CAPSTAN_TRY(Part part, read_part(body.substr(0, end)));
    parts.push_back(std::move(part));
    body.remove_prefix(end + between.size());
  }
  return parts;
}

}  // namespace capstan::agents::e2b

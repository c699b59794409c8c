// How: simdjson's DOM validates and parses; its tree is copied into owning values. The writer appends to one
// string.
#include "base/json.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <charconv>
#include <cmath>

#include "base/assert.h"
#include "base/text.h"

namespace capstan {
namespace {

Result<Json> convert(const simdjson::dom::element& element);

Result<Json> convert_array(const simdjson::dom::array& array) {
  Json::Array items;
  items.reserve(array.size());
  for (simdjson::dom::element item : array) {
    CAPSTAN_TRY(Json value, convert(item));
    items.push_back(std::move(value));
  }
  return Json(std::move(items));
}

Result<Json> convert_object(const simdjson::dom::object& object) {
  Json result = Json::object();
  result.members().reserve(object.size());
  for (auto [key, item] : object) {
    CAPSTAN_TRY(Json value, convert(item));
    // Linear look-up is right for small objects; large ones take the last duplicate only when small.
    if (result.size() <= 64) {
      result[key] = std::move(value);
    } else {
      result.members().emplace_back(std::string(key), std::move(value));
    }
  }
  return result;
}

Result<Json> convert(const simdjson::dom::element& element) {
  using simdjson::dom::element_type;
  switch (element.type()) {
    case element_type::NULL_VALUE:
      return Json();
    case element_type::BOOL:
      return Json(bool(element));
    case element_type::INT64:
      return Json(std::int64_t(element));
    case element_type::UINT64:
      return fail(Code::kInvalid, "integer {} is larger than 9223372036854775807", std::uint64_t(element));
    case element_type::DOUBLE:
      return Json(double(element));
    case element_type::STRING:
      return Json(std::string_view(element));
    case element_type::ARRAY:
      return convert_array(element);
    case element_type::OBJECT:
      return convert_object(element);
  }
  assertion_failed("a known JSON type", __FILE__, __LINE__);
}

void append_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  const std::size_t start = out.size();
  fmt::format_to(std::back_inserter(out), "{}", value);
  // 3.0 must read back as a double, not as an integer.
  if (out.find_first_of(".eE", start) == std::string::npos) out += ".0";
}

// A byte that does not stand for itself in a string.
void append_escaped(std::string& out, unsigned char byte) {
  if (byte == '"' || byte == '\\') {
    out += '\\';
    out += static_cast<char>(byte);
  } else if (byte == '\n') {
    out += "\\n";
  } else if (byte == '\t') {
    out += "\\t";
  } else if (byte == '\r') {
    out += "\\r";
  } else if (byte < 0x20) {
    fmt::format_to(std::back_inserter(out), "\\u{:04x}", byte);
  } else {
    out += "\xEF\xBF\xBD";
  }
}

void append_pretty(const Json& value, int indent, std::string& out) {
  const auto line = [&](int depth) { out.append("\n").append(static_cast<std::size_t>(depth) * 2, ' '); };
  if (value.is_array() && value.size() > 0) {
    out += '[';
    bool first = true;
    for (const Json& item : value.items()) {
      if (!std::exchange(first, false)) out += ',';
      line(indent + 1);
      append_pretty(item, indent + 1, out);
    }
    line(indent);
    out += ']';
  } else if (value.is_object() && value.size() > 0) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : value.members()) {
      if (!std::exchange(first, false)) out += ',';
      line(indent + 1);
      append_json_string(out, key);
      out += ": ";
      append_pretty(item, indent + 1, out);
    }
    line(indent);
    out += '}';
  } else {
    value.dump_to(out);
  }
}

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// The unit of UTF-16 that an escape at this place writes; 0 if there is none.
unsigned unit_at(std::string_view text, std::size_t at) {
  unsigned unit = 0;
  const char* const end = text.data() + std::min(at + 6, text.size());
  if (!text.substr(at).starts_with("\\u") || text.size() - at < 6) return 0;
  return std::from_chars(text.data() + at + 2, end, unit, 16).ptr == end ? unit : 0;
}

// The text with U+FFFD for each half of a surrogate pair that stands alone: JavaScript and Python escape what is left of
// an emoji that was cut in two like that.
std::string without_lone_surrogates(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const unsigned unit = text[at] == '\\' ? unit_at(text, at) : 0;
    const bool high = unit >= 0xD800 && unit < 0xDC00, low = unit >= 0xDC00 && unit < 0xE000;
    const unsigned next = high ? unit_at(text, at + 6) : 0;
    const bool pair = next >= 0xDC00 && next < 0xE000;
    const std::size_t length = pair ? 12 : unit != 0 ? 6 : text[at] == '\\' ? 2 : 1;
    out += low || (high && !pair) ? std::string_view("\\ufffd") : text.substr(at, length);
    at += length;
  }
  return out;
}

Result<Json> parse_strictly(std::string_view text, bool& bad_string) {
  simdjson::dom::parser parser;
  if (parser.allocate(text.size(), kJsonDepthMax) != simdjson::SUCCESS) {
    return fail(Code::kExhausted, "JSON of {} bytes is too large", text.size());
  }
  simdjson::dom::element root;
  const auto error = parser.parse(text.data(), text.size()).get(root);
  if (error == simdjson::DEPTH_ERROR) {
    return fail(Code::kInvalid, "JSON is nested deeper than {} levels", kJsonDepthMax);
  }
  bad_string = error == simdjson::STRING_ERROR;
  if (error != simdjson::SUCCESS) {
    return fail(Code::kInvalid, "not valid JSON: {}", to_lower(simdjson::error_message(error)));
  }
  return convert(root);
}

}  // namespace

Result<Json> Json::parse(std::string_view text) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  bool bad_string = false;
  auto parsed = parse_strictly(text, bad_string);
  return bad_string ? parse_strictly(without_lone_surrogates(text), bad_string) : parsed;
}

std::string_view Json::type_name() const {
  constexpr std::string_view kNames[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
  return kNames[value_.index()];
}

bool Json::as_bool() const {
  CAPSTAN_ASSERT(is_bool());
  return std::get<bool>(value_);
}

std::int64_t Json::as_int() const {
  CAPSTAN_ASSERT(is_int());
  return std::get<std::int64_t>(value_);
}

double Json::as_double() const {
  CAPSTAN_ASSERT(is_number());
  if (is_int()) return static_cast<double>(std::get<std::int64_t>(value_));
  return std::get<double>(value_);
}

const std::string& Json::as_string() const {
  CAPSTAN_ASSERT(is_string());
  return std::get<std::string>(value_);
}

const Json::Array& Json::items() const {
  CAPSTAN_ASSERT(is_array());
  return std::get<Array>(value_);
}

Json::Array& Json::items() {
  CAPSTAN_ASSERT(is_array());
  return std::get<Array>(value_);
}

const Json::Object& Json::members() const {
  CAPSTAN_ASSERT(is_object());
  return std::get<Object>(value_);
}

Json::Object& Json::members() {
  CAPSTAN_ASSERT(is_object());
  return std::get<Object>(value_);
}

const Json* Json::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  for (const Member& member : members()) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

Json* Json::find(std::string_view key) { return const_cast<Json*>(std::as_const(*this).find(key)); }

std::optional<std::string> Json::get_string(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_string()) return std::nullopt;
  return value->as_string();
}

std::optional<std::int64_t> Json::get_int(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_int()) return std::nullopt;
  return value->as_int();
}

std::optional<double> Json::get_double(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->as_double();
}

std::optional<bool> Json::get_bool(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_bool()) return std::nullopt;
  return value->as_bool();
}

Json& Json::operator[](std::string_view key) {
  if (is_null()) value_ = Object();
  CAPSTAN_ASSERT(is_object());
  if (Json* found = find(key)) return *found;
  members().emplace_back(std::string(key), Json());
  return members().back().second;
}

bool Json::erase(std::string_view key) {
  if (!is_object()) return false;
  return std::erase_if(members(), [&](const Member& member) { return member.first == key; }) > 0;
}

void Json::push_back(Json item) {
  if (is_null()) value_ = Array();
  items().push_back(std::move(item));
}

std::size_t Json::size() const {
  if (is_array()) return items().size();
  if (is_object()) return members().size();
  return 0;
}

std::string Json::dump() const {
  std::string out;
  dump_to(out);
  return out;
}

void Json::dump_to(std::string& out) const {
  if (is_null()) {
    out += "null";
  } else if (is_bool()) {
    out += as_bool() ? "true" : "false";
  } else if (is_int()) {
    const fmt::format_int digits(as_int());
    out.append(digits.data(), digits.size());
  } else if (is_number()) {
    append_double(out, std::get<double>(value_));
  } else if (is_string()) {
    append_json_string(out, as_string());
  } else if (is_array()) {
    out += '[';
    bool first = true;
    for (const Json& item : items()) {
      if (!std::exchange(first, false)) out += ',';
      item.dump_to(out);
    }
    out += ']';
  } else {
    out += '{';
    bool first = true;
    for (const auto& [key, value] : members()) {
      if (!std::exchange(first, false)) out += ',';
      append_json_string(out, key);
      out += ':';
      value.dump_to(out);
    }
    out += '}';
  }
}

std::string Json::pretty() const {
  std::string out;
  append_pretty(*this, 0, out);
  return out;
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  std::size_t plain = 0;  // where the run of bytes begins that stand for themselves
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\') {
      ++i;
      continue;
    }
    if (const std::size_t length = byte < 0x80 ? 0 : utf8_sequence_length(text.substr(i)); length > 0) {
      i += length;
      continue;
    }
    out.append(text, plain, i - plain);
    append_escaped(out, byte);
    plain = ++i;
  }
  out.append(text, plain);
  out += '"';
}

}  // namespace capstan

// JSON: a small owning value, a parser (simdjson underneath) and a compact writer.
//
//   CAPSTAN_TRY(Json request, Json::parse(body));
//   std::string model = request.get_string("model").value_or("");
//   Json reply = Json::object({{"id", id}, {"choices", Json::array()}});
//   reply["usage"]["total_tokens"] = 12;          // operator[] makes objects and members
//   std::string text = reply.dump();
//
// Objects keep insertion order, so output is deterministic. Duplicate keys: the last wins when reading.
// Integers are int64 (uint64 above its range is refused as invalid), other numbers double.
// Bounds: nesting deeper than kJsonDepthMax is refused; invalid UTF-8 is refused by the parser.
// Threads: a value, no sharing.  Cost: one allocation per container and long string.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace capstan {

inline constexpr int kJsonDepthMax = 64;

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;

  Json() = default;  // null
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  Json(int value) : value_(static_cast<std::int64_t>(value)) {}
  Json(unsigned value) : value_(static_cast<std::int64_t>(value)) {}
  Json(long value) : value_(static_cast<std::int64_t>(value)) {}
  Json(long long value) : value_(static_cast<std::int64_t>(value)) {}
  Json(unsigned long value) : value_(static_cast<std::int64_t>(value)) {}
  Json(unsigned long long value) : value_(static_cast<std::int64_t>(value)) {}
  Json(double value) : value_(value) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}

  static Json object(std::initializer_list<Member> members = {}) { return Json(Object(members)); }
  static Json array(std::initializer_list<Json> items = {}) { return Json(Array(items)); }

  // The error's message says what is wrong and at which line and column where it can.
  static Result<Json> parse(std::string_view text);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_int() const { return std::holds_alternative<std::int64_t>(value_); }
  bool is_number() const { return is_int() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }
  // "null", "boolean", "integer", "number", "string", "array", "object": for messages.
  std::string_view type_name() const;

  // Unchecked access: asserts on another type.
  bool as_bool() const;
  std::int64_t as_int() const;
  double as_double() const;  // an integer converts
  const std::string& as_string() const;
  const Array& items() const;  // of an array
  Array& items();
  const Object& members() const;  // of an object
  Object& members();

  // Member access on an object; nullptr if absent or if this is no object.
  const Json* find(std::string_view key) const;
  Json* find(std::string_view key);
  bool contains(std::string_view key) const { return find(key) != nullptr; }
  // The member's value if it is there with that type; an absent, null or otherwise typed member gives
  // nullopt.
  std::optional<std::string> get_string(std::string_view key) const;
  std::optional<std::int64_t> get_int(std::string_view key) const;
  std::optional<double> get_double(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;

  // The member, made null if absent; a null value becomes an object first. Asserts on other types.
  Json& operator[](std::string_view key);
  bool erase(std::string_view key);
  void push_back(Json item);  // a null value becomes an array first
  std::size_t size() const;   // of an array or object, else 0

  // Compact, one line. Doubles are written so that they read back equal; NaN and infinities become null.
  std::string dump() const;
  void dump_to(std::string& out) const;
  // For people: two spaces of indentation.
  std::string pretty() const;

  friend bool operator==(const Json&, const Json&) = default;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> value_;
};

// Appends `text` as a JSON string with its quotes. Invalid UTF-8 bytes become U+FFFD.
void append_json_string(std::string& out, std::string_view text);

}  // namespace capstan

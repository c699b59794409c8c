// How it works: each function looks the member up once and words the refusal the same way.
#include "protocol/fields.h"

namespace capstan::protocol {
namespace {

std::unexpected<Error> wrong(std::string_view key, std::string_view wanted, const Json* got) {
  return std::unexpected<Error>(
      Error{Code::kInvalid,
            fmt::format("'{}' must be {}, not {}", key, wanted, got == nullptr ? "absent" : got->type_name()),
            std::string(key)});
}

bool absent(const Json* value) { return value == nullptr || value->is_null(); }

}  // namespace

Result<std::int64_t> need_int(const Json& json, std::string_view key, std::int64_t min, std::int64_t max) {
  const Json* value = json.find(key);
  if (absent(value) || !value->is_int()) return wrong(key, "an integer", value);
  const std::int64_t number = value->as_int();
  if (number < min || number > max) {
    return std::unexpected<Error>(Error{
        Code::kInvalid, fmt::format("'{}' is {}, outside {}..{}", key, number, min, max), std::string(key)});
  }
  return number;
}

Result<std::int64_t> int_or(const Json& json, std::string_view key, std::int64_t otherwise, std::int64_t min,
                            std::int64_t max) {
  if (absent(json.find(key))) return otherwise;
  return need_int(json, key, min, max);
}

Result<std::string> need_text(const Json& json, std::string_view key, std::size_t bytes_max) {
  const Json* value = json.find(key);
  if (absent(value) || !value->is_string()) return wrong(key, "a string", value);
  if (value->as_string().size() > bytes_max) {
    return std::unexpected<Error>(
        Error{Code::kInvalid, fmt::format("'{}' is longer than {} bytes", key, bytes_max), std::string(key)});
  }
  return value->as_string();
}

Result<std::string> text_or(const Json& json, std::string_view key, std::string_view otherwise,
                            std::size_t bytes_max) {
  if (absent(json.find(key))) return std::string(otherwise);
  return need_text(json, key, bytes_max);
}

Result<bool> bool_or(const Json& json, std::string_view key, bool otherwise) {
  const Json* value = json.find(key);
  if (absent(value)) return otherwise;
  if (!value->is_bool()) return wrong(key, "a boolean", value);
  return value->as_bool();
}

Result<Json::Array> array_or_empty(const Json& json, std::string_view key, std::size_t items_max) {
  const Json* value = json.find(key);
  if (absent(value)) return Json::Array{};
  if (!value->is_array()) return wrong(key, "an array", value);
  if (value->size() > items_max) {
    return std::unexpected<Error>(
        Error{Code::kInvalid, fmt::format("'{}' has more than {} items", key, items_max), std::string(key)});
  }
  return value->items();
}

}  // namespace capstan::protocol

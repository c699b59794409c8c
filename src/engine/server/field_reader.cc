// Wording and codes as api.openai.com answers them.
#include "engine/server/field_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

namespace capstan::engine {

const Json* FieldReader::find(std::string_view key) const {
  if (error_) return nullptr;
  const Json* value = object_.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void FieldReader::require_plain_name(std::string_view key, const std::string& name) {
  const bool plain = !name.empty() && name.size() <= 64 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  if (plain) return;
  fail_with(ApiError::bad_value(
      path(key), fmt::format("Invalid '{}': '{}' must match ^[a-zA-Z0-9_-]{{1,64}}$.", path(key), name)));
}

bool FieldReader::is_null(std::string_view key) const {
  const Json* value = object_.find(key);
  return value != nullptr && value->is_null();
}

std::optional<std::string> FieldReader::string(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->as_string();
  fail_with(ApiError::wrong_type(path(key), "a string", *value));
  return std::nullopt;
}

std::string FieldReader::required_string(std::string_view key) {
  if (failed()) return {};
  const Json* value = object_.find(key);
  if (value == nullptr) {
    fail_with(ApiError::missing(path(key)));
  } else if (!value->is_string()) {
    fail_with(ApiError::wrong_type(path(key), "a string", *value));
  } else {
    return value->as_string();
  }
  return {};
}

std::optional<bool> FieldReader::boolean(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_bool()) return value->as_bool();
  fail_with(ApiError::wrong_type(path(key), "a boolean", *value));
  return std::nullopt;
}

std::optional<double> FieldReader::number(std::string_view key, double min, double max) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    fail_with(ApiError::wrong_type(path(key), "a number", *value));
    return std::nullopt;
  }
  const double number = value->as_double();
  if (number >= min && number <= max) return number;
  const bool above = number > max;
  ApiError error = ApiError::bad_value(
      path(key),
      fmt::format("Invalid '{}': decimal {} value. Expected a value {} {}, but got {} instead.", path(key),
                  above ? "above maximum" : "below minimum", above ? "<=" : ">=", above ? max : min, number));
  error.code = above ? "decimal_above_max_value" : "decimal_below_min_value";
  fail_with(std::move(error));
  return std::nullopt;
}

std::optional<std::int64_t> FieldReader::integer(std::string_view key, std::int64_t min, std::int64_t max) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  constexpr double kExactMax = 9007199254740992;  // 2^53
  const double wide = value->is_number() ? value->as_double() : 0.5;
  if (!value->is_int() && (wide != std::trunc(wide) || std::abs(wide) > kExactMax)) {
    fail_with(ApiError::wrong_type(path(key), "an integer", *value));
    return std::nullopt;
  }
  const std::int64_t number = value->is_int() ? value->as_int() : static_cast<std::int64_t>(wide);
  if (number >= min && number <= max) return number;
  const bool above = number > max;
  ApiError error = ApiError::bad_value(
      path(key),
      fmt::format("Invalid '{}': integer {} value. Expected a value {} {}, but got {} instead.", path(key),
                  above ? "above maximum" : "below minimum", above ? "<=" : ">=", above ? max : min, number));
  error.code = above ? "integer_above_max_value" : "integer_below_min_value";
  fail_with(std::move(error));
  return std::nullopt;
}

const Json* FieldReader::array(std::string_view key, std::size_t length_max) {
  const Json* value = find(key);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) {
    fail_with(ApiError::wrong_type(path(key), "an array", *value));
    return nullptr;
  }
  if (value->size() <= length_max) return value;
  ApiError error = ApiError::bad_value(
      path(key), fmt::format("Invalid '{}': array too long. Expected an array with maximum length {}, "
                             "but got an array with length {} instead.",
                             path(key), length_max, value->size()));
  error.code = "array_above_max_length";
  fail_with(std::move(error));
  return nullptr;
}

const Json* FieldReader::object(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr || value->is_object()) return value;
  fail_with(ApiError::wrong_type(path(key), "an object", *value));
  return nullptr;
}

std::optional<std::string> FieldReader::choice(std::string_view key,
                                               std::initializer_list<std::string_view> values) {
  auto value = string(key);
  if (!value || std::ranges::find(values, *value) != values.end()) return value;
  std::string supported;
  for (const std::string_view name : values)
    supported += fmt::format("{}'{}'", supported.empty() ? "" : ", ", name);
  fail_with(ApiError::bad_value(
      path(key), fmt::format("Invalid value: '{}'. Supported values are: {}.", *value, supported)));
  return std::nullopt;
}

}  // namespace capstan::engine

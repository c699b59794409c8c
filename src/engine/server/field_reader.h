// Reads the members of one JSON object with OpenAI's error messages. The first error is kept; after it, every
// question answers "absent", so that a parser reads straight on and looks once at the end. Private to this
// folder.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "engine/server/openai_error.h"

namespace capstan::engine {

class FieldReader {
 public:
  // `path` names the object in messages ("messages[0]"); empty for the body itself.
  FieldReader(const Json& object, std::string path, std::optional<ApiError>& error)
      : object_(object), path_(std::move(path)), error_(error) {}

  bool failed() const { return error_.has_value(); }
  void fail_with(ApiError error) {
    if (!error_) error_ = std::move(error);
  }
  std::string path(std::string_view key) const {
    return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  }

  // The member; nullptr if it is absent or null, or after an error.
  const Json* find(std::string_view key) const;
  bool is_null(std::string_view key) const;  // there, and null
  // Absent and null give nullopt. An integer may be written as 5.0.
  std::optional<std::string> string(std::string_view key);
  std::optional<bool> boolean(std::string_view key);
  std::optional<double> number(std::string_view key, double min, double max);
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t min, std::int64_t max);
  const Json* array(std::string_view key, std::size_t length_max);
  const Json* object(std::string_view key);
  // One of `values`; nullopt if absent.
  std::optional<std::string> choice(std::string_view key, std::initializer_list<std::string_view> values);
  // As string(), but absent is an error.
  std::string required_string(std::string_view key);
  // What functions and schemas may be called, of what was read: ^[a-zA-Z0-9_-]{1,64}$.
  void require_plain_name(std::string_view key, const std::string& name);

 private:
  const Json& object_;
  std::string path_;
  std::optional<ApiError>& error_;
};

}  // namespace capstan::engine

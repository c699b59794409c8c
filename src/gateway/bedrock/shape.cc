// One function a kind; the first thing that is wrong is told, with its path.
#include "gateway/bedrock/shape.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/base64.h"

namespace capstan::gateway::bedrock {
namespace {

std::unexpected<Error> unsatisfied(const std::string& path, std::string_view constraint) {
  return fail(Code::kInvalid, "1 validation error detected: Value at '{}' failed to satisfy constraint: {}", path, constraint);
}

std::unexpected<Error> wrong_type(const std::string& path, std::string_view wanted, const Json& got) {
  if (path.empty()) return fail(Code::kInvalid, "the body must be a JSON object, not {}", got.type_name());
  return fail(Code::kInvalid, "1 validation error detected: Value at '{}' must be {}, not {}", path, wanted, got.type_name());
}

std::string at(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
}

Result<void> check(const Shape& shape, const Json& value, const std::string& path);

Result<void> check_size(const Shape& shape, double size, std::string_view what, const std::string& path) {
  if (size < shape.least)
    return unsatisfied(path,
                       fmt::format("Member must have {} greater than or equal to {}", what, shape.least));
  if (size > shape.most) return unsatisfied(path, fmt::format("Member must have {} less than or equal to {}", what, shape.most));
  return {};
}

Result<void> check_string(const Shape& shape, const Json& value, const std::string& path) {
  if (!value.is_string()) return wrong_type(path, "a string", value);
  const std::string& text = value.as_string();
  if (!shape.values.empty() && std::ranges::find(shape.values, text) == shape.values.end())
    return unsatisfied(path, fmt::format("Member must satisfy enum value set: [{}]", fmt::join(shape.values, ", ")));
  const auto characters = std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; });
  CAPSTAN_CHECK(check_size(shape, static_cast<double>(characters), "length", path));
  if (shape.allows != nullptr && !std::ranges::all_of(text, [&](char c) { return shape.allows(static_cast<unsigned char>(c)); }))
    return unsatisfied(path, fmt::format("Member must satisfy regular expression pattern: {}", shape.pattern));
  return {};
}

Result<void> check_blob(const Shape& shape, const Json& value, const std::string& path) {
  const auto bytes = value.is_string() ? base64_decode(value.as_string()) : std::nullopt;
  if (!bytes) return fail(Code::kInvalid, "1 validation error detected: Value at '{}' must be bytes in base64", path);
  return check_size(shape, static_cast<double>(bytes->size()), "length", path);
}

Result<void> check_number(const Shape& shape, const Json& value, const std::string& path) {
  if (!value.is_number()) return wrong_type(path, "a number", value);
  const double number = value.as_double();
  if (shape.kind == Shape::kInteger && number != std::trunc(number)) return wrong_type(path, "an integer", value);
  return check_size(shape, number, "value", path);
}

Result<void> check_items(const Shape& shape, const Json& value, const std::string& path) {
  if (!value.is_array()) return wrong_type(path, "an array", value);
  CAPSTAN_CHECK(check_size(shape, static_cast<double>(value.size()), "length", path));
  for (std::size_t i = 0; i < value.size(); ++i) CAPSTAN_CHECK(check(*shape.item, value.items()[i], at(path, std::to_string(i))));
  return {};
}

Result<void> check_map(const Shape& shape, const Json& value, const std::string& path) {
  if (!value.is_object()) return wrong_type(path, "an object", value);
  CAPSTAN_CHECK(check_size(shape, static_cast<double>(value.size()), "length", path));
  for (const auto& [key, item] : value.members()) CAPSTAN_CHECK(check(*shape.item, item, at(path, key)));
  return {};
}

Result<void> check_members(const Shape& shape, const Json& value, const std::string& path) {
  if (!value.is_object()) return wrong_type(path, "an object", value);
  for (const Member& member : shape.members) {
    const Json* found = value.find(member.name);
    const std::string where = at(path, member.name);
    if (found != nullptr && !found->is_null()) {
      CAPSTAN_CHECK(check(member.shape, *found, where));
    } else if (member.required) {
      return unsatisfied(where, "Member must not be null");
    }
  }
  return {};
}

Result<void> check_union(const Shape& shape, const Json& value, const std::string& path) {
  if (!value.is_object()) return wrong_type(path, "an object", value);
  const Json::Member* set = nullptr;
  std::size_t count = 0;
  for (const Json::Member& member : value.members()) {
    if (member.second.is_null()) continue;
    set = &member;
    ++count;
  }
  if (count != 1)
    return unsatisfied(path, fmt::format("Member must have exactly one of its members set, not {}", count));
  const auto known = std::ranges::find(shape.members, set->first, &Member::name);
  if (known == shape.members.end()) {
    std::string names;
    for (const Member& member : shape.members) names += fmt::format("{}{}", names.empty() ? "" : ", ", member.name);
    return unsatisfied(path, fmt::format("Member must be one of [{}], not '{}'", names, set->first));
  }
  return check(known->shape, set->second, at(path, set->first));
}

Result<void> check(const Shape& shape, const Json& value, const std::string& path) {
  switch (shape.kind) {
    case Shape::kString:
      return check_string(shape, value, path);
    case Shape::kBlob:
      return check_blob(shape, value, path);
    case Shape::kInteger:
    case Shape::kFloat:
      return check_number(shape, value, path);
    case Shape::kBoolean:
      if (!value.is_bool()) return wrong_type(path, "a boolean", value);
      return {};
    case Shape::kDocument:
      return {};
    case Shape::kList:
      return check_items(shape, value, path);
    case Shape::kMap:
      return check_map(shape, value, path);
    case Shape::kStructure:
      return check_members(shape, value, path);
    case Shape::kUnion:
      return check_union(shape, value, path);
  }
  return {};
}

}  // namespace

Result<void> check_shape(const Shape& shape, const Json& value) { return check(shape, value, {}); }

}  // namespace capstan::gateway::bedrock

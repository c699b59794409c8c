// For tests: a plain JSON schema validator, the obvious twin of the compiler. Shares no code with it.
//
//   const std::string why = invalid_because(schema, value);   // empty: the value satisfies the schema
//
// It knows the whole meaning of the keywords that the compiler accepts, wider than what the compiler writes:
// any order of properties, further properties, any number. Not: draft 4's words, references by name,
// unevaluated….
#pragma once

#include <cmath>
#include <regex>
#include <set>
#include <string>

#include "base/json.h"

namespace capstan::engine::testing {

class SchemaValidator {
 public:
  explicit SchemaValidator(const Json& root) : root_(root) {}

  std::string check(const Json& schema, const Json& value, int depth = 0) const {
    if (depth > 200) return "too deep";
    if (schema == Json(true)) return "";
    if (schema == Json(false)) return "false allows nothing";
    if (const auto ref = schema.get_string("$ref")) {
      const Json* target = find(*ref);
      if (target == nullptr) return "no target of " + *ref;
      if (auto why = check(*target, value, depth + 1); !why.empty()) return why;
    }
    for (const auto part : {&SchemaValidator::type, &SchemaValidator::constants, &SchemaValidator::unions,
                            &SchemaValidator::conditions, &SchemaValidator::numbers,
                            &SchemaValidator::strings, &SchemaValidator::arrays, &SchemaValidator::contained,
                            &SchemaValidator::objects, &SchemaValidator::dependents}) {
      if (auto why = (this->*part)(schema, value, depth); !why.empty()) return why;
    }
    return "";
  }

 private:
  const Json* find(const std::string& ref) const {
    const Json* at = &root_;
    std::size_t begin = 1;
    while (begin < ref.size() && at != nullptr) {
      const std::size_t end = std::min(ref.find('/', begin + 1), ref.size());
      const std::string key = ref.substr(begin + 1, end - begin - 1);
      at = at->is_array() ? &at->items()[std::stoul(key)] : at->find(key);
      begin = end;
    }
    return at;
  }

  // 1 equals 1.0; the order of members does not matter.
  static bool equal(const Json& a, const Json& b) {
    if (a.is_number() && b.is_number()) return a.as_double() == b.as_double();
    if (a.is_array() && b.is_array()) {
      bool same = a.size() == b.size();
      for (std::size_t i = 0; same && i < a.size(); ++i) same = equal(a.items()[i], b.items()[i]);
      return same;
    }
    if (!a.is_object() || !b.is_object()) return a == b;
    bool same = a.size() == b.size();
    for (const auto& [name, value] : a.members())
      same = same && b.contains(name) && equal(value, *b.find(name));
    return same;
  }
  std::string conditions(const Json& schema, const Json& value, int depth) const {
    if (const Json* no = schema.find("not"); no != nullptr && check(*no, value, depth + 1).empty())
      return "not is satisfied";
    const Json* condition = schema.find("if");
    if (condition == nullptr) return "";
    const Json* part = schema.find(check(*condition, value, depth + 1).empty() ? "then" : "else");
    return part == nullptr ? "" : check(*part, value, depth + 1);
  }
  std::string contained(const Json& schema, const Json& value, int depth) const {
    if (!value.is_array()) return "";
    if (schema.get_bool("uniqueItems") == true) {
      for (std::size_t i = 0; i < value.size(); ++i)
        for (std::size_t j = 0; j < i; ++j)
          if (equal(value.items()[i], value.items()[j]))
            return "items " + std::to_string(j) + " and " + std::to_string(i) + " are equal";
    }
    const Json* part = schema.find("contains");
    if (part == nullptr) return "";
    std::int64_t count = 0;
    for (const Json& item : value.items()) count += check(*part, item, depth + 1).empty();
    if (count < schema.get_int("minContains").value_or(1)) return "contains too few";
    return count > schema.get_int("maxContains").value_or(count) ? "contains too many" : "";
  }
  std::string dependents(const Json& schema, const Json& value, int depth) const {
    if (!value.is_object()) return "";
    if (const Json* list = schema.find("dependentRequired")) {
      for (const auto& [name, others] : list->members())
        for (const Json& other : others.items())
          if (value.contains(name) && !value.contains(other.as_string()))
            return name + " needs " + other.as_string();
    }
    if (const Json* list = schema.find("dependentSchemas")) {
      for (const auto& [name, part] : list->members()) {
        if (!value.contains(name)) continue;
        if (auto why = check(part, value, depth + 1); !why.empty()) return name + " asks: " + why;
      }
    }
    return "";
  }
  static bool is_type(const Json& value, const std::string& type) {
    if (type == "number") return value.is_number();
    if (type == "integer") return value.is_number() && std::floor(value.as_double()) == value.as_double();
    return value.type_name() == type;
  }
  std::string type(const Json& schema, const Json& value, int) const {
    const Json* type = schema.find("type");
    if (type == nullptr || (schema.get_bool("nullable") == true && value.is_null())) return "";
    const Json list = type->is_array() ? *type : Json::array({*type});
    for (const Json& item : list.items())
      if (is_type(value, item.as_string())) return "";
    return "type is not " + type->dump();
  }
  std::string constants(const Json& schema, const Json& value, int) const {
    if (const Json* only = schema.find("const"); only != nullptr && !equal(*only, value))
      return "not the const";
    if (const Json* list = schema.find("enum")) {
      for (const Json& item : list->items())
        if (equal(item, value)) return "";
      return "not in the enum";
    }
    return "";
  }
  std::string unions(const Json& schema, const Json& value, int depth) const {
    for (const char* keyword : {"allOf", "anyOf", "oneOf"}) {
      const Json* list = schema.find(keyword);
      if (list == nullptr) continue;
      std::size_t fits = 0;
      for (const Json& branch : list->items()) fits += check(branch, value, depth + 1).empty();
      const std::string word = keyword;
      if (word == "allOf" ? fits != list->size() : word == "anyOf" ? fits == 0 : fits != 1)
        return word + ": " + std::to_string(fits) + " branches fit";
    }
    return "";
  }
  std::string numbers(const Json& schema, const Json& value, int) const {
    if (!value.is_number()) return "";
    const double number = value.as_double();
    const auto bound = [&](const char* keyword) { return schema.get_double(keyword); };
    if (const auto b = bound("minimum"); b && number < *b) return "below minimum";
    if (const auto b = bound("maximum"); b && number > *b) return "above maximum";
    if (const auto b = bound("exclusiveMinimum"); b && number <= *b) return "not above exclusiveMinimum";
    if (const auto b = bound("exclusiveMaximum"); b && number >= *b) return "not below exclusiveMaximum";
    if (const auto step = bound("multipleOf")) {
      const double times = number / *step;
      if (std::abs(times - std::round(times)) > 1e-9 * std::max(1.0, std::abs(times))) return "no multiple";
    }
    return "";
  }
  // By characters, not bytes.
  static bool matches(const std::string& text, const std::string& pattern) {
    const auto wide = [](const std::string& bytes) {
      std::wstring out;
      for (std::size_t i = 0; i < bytes.size();) {
        const auto lead = static_cast<unsigned char>(bytes[i]);
        const int size = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        std::uint32_t point = size == 1 ? lead : lead & (0x3F >> (size - 1));
        for (int k = 1; k < size; ++k)
          point = point << 6 | (static_cast<unsigned char>(bytes[i + static_cast<std::size_t>(k)]) & 0x3F);
        out += static_cast<wchar_t>(point);
        i += static_cast<std::size_t>(size);
      }
      return out;
    };
    return std::regex_search(wide(text), std::wregex(wide(pattern)));
  }
  static std::size_t characters(const std::string& text) {
    std::size_t count = 0;
    for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    return count;
  }
  static bool leap(int year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }
  static bool is_date(const std::string& text) {
    static const std::regex kShape("\\d{4}-\\d{2}-\\d{2}");
    if (!std::regex_match(text, kShape)) return false;
    const int year = std::stoi(text.substr(0, 4)), month = std::stoi(text.substr(5, 2)),
              day = std::stoi(text.substr(8));
    static const int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month >= 1 && month <= 12 && day >= 1 && day <= kDays[month - 1] + (month == 2 && leap(year));
  }
  static bool is_time(const std::string& text) {
    static const std::regex kShape("(\\d{2}):(\\d{2}):(\\d{2})(\\.\\d+)?(Z|[+-](\\d{2}):(\\d{2}))");
    std::smatch match;
    if (!std::regex_match(text, match, kShape)) return false;
    const auto below = [&](int group, int limit) {
      return match[group].length() == 0 || std::stoi(match[group]) < limit;
    };
    return below(1, 24) && below(2, 60) && below(3, 60) && below(6, 24) && below(7, 60);
  }
  static bool is_ipv4(const std::string& text) {
    static const std::regex kShape("(\\d{1,3})\\.(\\d{1,3})\\.(\\d{1,3})\\.(\\d{1,3})");
    std::smatch match;
    if (!std::regex_match(text, match, kShape)) return false;
    for (int i = 1; i <= 4; ++i)
      if (std::stoi(match[i]) > 255 || (match[i].length() > 1 && match[i].str()[0] == '0')) return false;
    return true;
  }
  // Groups between colons, "::" once at most.
  static bool is_ipv6(const std::string& text) {
    static const std::regex kChars("[0-9A-Fa-f:]+");
    if (!std::regex_match(text, kChars) || text.find(":::") != std::string::npos) return false;
    const std::size_t gap = text.find("::");
    if (gap != std::string::npos && text.find("::", gap + 1) != std::string::npos) return false;
    int groups = 0;
    std::string group;
    for (const char c : text + ":") {
      if (c != ':')
        group += c;
      else if (!group.empty()) {
        if (group.size() > 4) return false;
        ++groups;
        group.clear();
      }
    }
    const bool edges =
        (text.front() != ':' || text.starts_with("::")) && (text.back() != ':' || text.ends_with("::"));
    return edges && (gap == std::string::npos ? groups == 8 : groups <= 7);
  }
  static bool has_format(const std::string& text, const std::string& format) {
    if (format == "date") return is_date(text);
    if (format == "time") return is_time(text);
    if (format == "date-time")
      return text.size() > 11 && text[10] == 'T' && is_date(text.substr(0, 10)) && is_time(text.substr(11));
    if (format == "ipv4") return is_ipv4(text);
    if (format == "ipv6") return is_ipv6(text);
    static const std::regex kUuid("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}");
    if (format == "uuid") return std::regex_match(text, kUuid);
    static const std::regex kHost(
        "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*");
    if (format == "hostname") return std::regex_match(text, kHost);
    const std::size_t at = text.find('@');
    if (format == "email")
      return at != std::string::npos && at > 0 && text[0] != '.' &&
             std::regex_match(text.substr(at + 1), kHost);
    static const std::regex kUri("[A-Za-z][A-Za-z0-9+.-]*:[^ <>\"{}|\\\\^`]+");
    if (format == "uri") return std::regex_match(text, kUri);
    static const std::regex kDuration(
        "P(?!$)(\\d+W|(\\d+Y)?(\\d+M)?(\\d+D)?(T(?=\\d)(\\d+H)?(\\d+M)?(\\d+S)?)?)");
    if (format == "duration") return std::regex_match(text, kDuration);
    static const std::set<std::string> kOthers = {"date", "time",  "date-time", "ipv4",     "ipv6",
                                                  "uuid", "email", "uri",       "hostname", "duration"};
    return !kOthers.contains(format);  // formats that are not judged here
  }
  std::string strings(const Json& schema, const Json& value, int) const {
    if (!value.is_string()) return "";
    const std::size_t count = characters(value.as_string());
    if (const auto min = schema.get_int("minLength"); min && count < static_cast<std::size_t>(*min))
      return "too short";
    if (const auto max = schema.get_int("maxLength"); max && count > static_cast<std::size_t>(*max))
      return "too long";
    if (const auto pattern = schema.get_string("pattern")) {
      if (!matches(value.as_string(), *pattern)) return "does not match " + *pattern;
    }
    if (const auto format = schema.get_string("format"); format && !has_format(value.as_string(), *format))
      return "no " + *format;
    return "";
  }
  std::string arrays(const Json& schema, const Json& value, int depth) const {
    if (!value.is_array()) return "";
    if (const auto min = schema.get_int("minItems"); min && value.size() < static_cast<std::size_t>(*min))
      return "too few items";
    if (const auto max = schema.get_int("maxItems"); max && value.size() > static_cast<std::size_t>(*max))
      return "too many items";
    const Json* prefix = schema.find("prefixItems");
    const std::size_t fixed = prefix == nullptr ? 0 : prefix->size();
    for (std::size_t i = 0; i < value.size(); ++i) {
      const Json* each = i < fixed ? &prefix->items()[i] : schema.find("items");
      if (each == nullptr) continue;
      if (auto why = check(*each, value.items()[i], depth + 1); !why.empty())
        return "item " + std::to_string(i) + ": " + why;
    }
    return "";
  }
  std::string objects(const Json& schema, const Json& value, int depth) const {
    if (!value.is_object()) return "";
    if (const Json* required = schema.find("required")) {
      for (const Json& name : required->items())
        if (!value.contains(name.as_string())) return "misses " + name.as_string();
    }
    std::set<std::string> distinct;
    for (const auto& [name, member] : value.members()) distinct.insert(name);
    if (const auto min = schema.get_int("minProperties");
        min && distinct.size() < static_cast<std::size_t>(*min))
      return "too few properties";
    if (const auto max = schema.get_int("maxProperties");
        max && distinct.size() > static_cast<std::size_t>(*max))
      return "too many properties";
    const Json* named = schema.find("properties");
    for (const auto& [name, member] : value.members()) {
      if (const Json* names = schema.find("propertyNames"); names != nullptr) {
        if (auto why = check(*names, name, depth + 1); !why.empty()) return "name '" + name + "': " + why;
      }
      bool known = false;
      if (named != nullptr && named->contains(name)) {
        known = true;
        if (auto why = check(*named->find(name), member, depth + 1); !why.empty()) return name + ": " + why;
      }
      if (const Json* patterns = schema.find("patternProperties")) {
        for (const auto& [pattern, part] : patterns->members()) {
          if (!matches(name, pattern)) continue;
          known = true;
          if (auto why = check(part, member, depth + 1); !why.empty()) return name + ": " + why;
        }
      }
      const Json* additional = schema.find("additionalProperties");
      if (known || additional == nullptr) continue;
      if (auto why = check(*additional, member, depth + 1); !why.empty())
        return "further " + name + ": " + why;
    }
    return "";
  }

  const Json& root_;
};

inline std::string invalid_because(const Json& schema, const Json& value) {
  return SchemaValidator(schema).check(schema, value);
}

}  // namespace capstan::engine::testing

// How: a mapping remembers the keys that it was asked for; finish() compares them with what is there.
#include "workload/yaml_fields.h"

#include <algorithm>

#include "base/text.h"

namespace capstan::workload {

void Context::add(int line, int column, std::string message, std::string hint) {
  if (diagnostics.size() >= kDiagnosticsMax) return;
  diagnostics.push_back({source, line, column, std::move(message), std::move(hint)});
}

std::string did_you_mean(std::string_view word, std::span<const std::string_view> known, std::string& hint) {
  const auto found = nearest(word, known);
  if (!found) return fmt::format("known are {}", fmt::join(known, ", "));
  hint = *found;
  return fmt::format("did you mean '{}'?", *found);
}

MappingReader::MappingReader(Context& context, const Yaml& node, std::string_view what)
    : context_(context), node_(node) {
  if (node.type != Yaml::Type::kMapping) {
    context_.add(node, fmt::format("{} must be a mapping of keys to values, not {}", what, node.type_name()));
    return;
  }
  for (std::size_t i = 0; i < node.members.size(); ++i) {
    const auto& key = node.members[i].first;
    for (std::size_t j = 0; j < i; ++j) {
      if (node.members[j].first.text != key.text) continue;
      context_.add(key.line, key.column,
                   fmt::format("key '{}' is given twice; the first is on line {}", key.text,
                               node.members[j].first.line));
      break;
    }
  }
}

const Yaml* MappingReader::peek(std::string_view key) const {
  for (const auto& [name, value] : node_.members) {
    if (name.text == key && value.type != Yaml::Type::kNull) return &value;
  }
  return nullptr;
}

const Yaml* MappingReader::take(std::string_view key) {
  known_.push_back(key);
  return peek(key);
}

void MappingReader::refuse(std::string_view key, std::string_view message) {
  refused_.push_back(key);
  for (const auto& [name, value] : node_.members) {
    if (name.text == key) context_.add(name.line, name.column, std::string(message));
  }
}

void MappingReader::finish() {
  for (const auto& [key, value] : node_.members) {
    if (std::ranges::find(known_, key.text) != known_.end()) continue;
    if (std::ranges::find(refused_, key.text) != refused_.end()) continue;
    std::string hint;
    const std::string advice = did_you_mean(key.text, known_, hint);
    context_.add(key.line, key.column, fmt::format("unknown key '{}'; {}", key.text, advice), hint);
  }
}

bool is_scalar(Context& context, const Yaml& value, std::string_view key) {
  if (value.type == Yaml::Type::kScalar) return true;
  context.add(value, fmt::format("'{}' must be a single value, not {}", key, value.type_name()));
  return false;
}

void read_text(Context& context, MappingReader& mapping, std::string_view key, std::string& out) {
  const Yaml* value = mapping.take(key);
  if (value != nullptr && is_scalar(context, *value, key)) out = value->scalar;
}

void read_bool(Context& context, MappingReader& mapping, std::string_view key, bool& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr || !is_scalar(context, *value, key)) return;
  if (value->scalar != "true" && value->scalar != "false") {
    context.add(*value, fmt::format("'{}' must be true or false, not '{}'", key, value->scalar));
    return;
  }
  out = value->scalar == "true";
}

void read_integer(Context& context, MappingReader& mapping, std::string_view key, Range range,
                  std::int64_t& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr || !is_scalar(context, *value, key)) return;
  const auto number = parse_int(value->scalar);
  if (!number) {
    context.add(*value, fmt::format("'{}' must be a whole number, not '{}'", key, value->scalar));
  } else if (*number < range.low || *number > range.high) {
    context.add(*value, fmt::format("'{}' is {}, but must be between {} and {}", key, *number, range.low,
                                    range.high));
  } else {
    out = *number;
  }
}

void read_quantity(Context& context, MappingReader& mapping, std::string_view key, QuantityParser parse,
                   std::int64_t& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr || !is_scalar(context, *value, key)) return;
  if (auto quantity = parse(value->scalar)) {
    out = *quantity;
  } else {
    context.add(*value, fmt::format("'{}': {}", key, quantity.error().message));
  }
}

bool is_name(std::string_view text) {
  const auto letter_or_digit = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (text.empty() || text.size() > kNameLengthMax || !letter_or_digit(text.front()) ||
      !letter_or_digit(text.back()))
    return false;
  return std::ranges::all_of(text, [&](char c) { return letter_or_digit(c) || c == '-'; });
}

void read_name(Context& context, MappingReader& mapping, std::string_view key, bool required,
               std::string& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr) {
    if (required)
      context.add(mapping.node(),
                  fmt::format("'{0}' is missing; give it one, for example '{0}: my-first'", key));
    return;
  }
  if (!is_scalar(context, *value, key)) return;
  out = value->scalar;
  if (is_name(out)) return;
  context.add(*value,
              fmt::format("{} '{}' must be 1 to {} of a-z, 0-9 and '-', with a letter or digit at both ends",
                          key, out, kNameLengthMax));
}

}  // namespace capstan::workload

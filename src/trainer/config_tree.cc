// How it works: yaml-cpp's nodes are copied into plain structs with their marks, then yaml-cpp is done.
// yaml-cpp keeps both of two equal keys when iterating, which is how duplicates are seen.
#include "trainer/config_tree.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/text.h"

namespace capstan::trainer {
namespace {

std::string position(std::string_view file, const YAML::Mark& mark) {
  return fmt::format("{}:{}:{}", file, mark.line + 1, mark.column + 1);
}

Result<ConfigNode> copy_node(const YAML::Node& from, std::string_view file, int depth) {
  ConfigNode node;
  node.where = position(file, from.Mark());
  if (depth > kConfigDepthMax) {
    return fail(Code::kInvalid, "{}: nested deeper than {} levels", node.where, kConfigDepthMax);
  }
  if (from.IsScalar()) {
    node.type = ConfigNode::Type::kScalar;
    node.scalar = from.Scalar();
  } else if (from.IsSequence()) {
    node.type = ConfigNode::Type::kList;
    for (const YAML::Node& item : from) {
      CAPSTAN_TRY(ConfigNode copied, copy_node(item, file, depth + 1));
      node.items.push_back(std::move(copied));
    }
  } else if (from.IsMap()) {
    node.type = ConfigNode::Type::kMapping;
    for (const auto& pair : from) {
      const std::string where = position(file, pair.first.Mark());
      if (!pair.first.IsScalar()) return fail(Code::kInvalid, "{}: a key must be a plain word", where);
      CAPSTAN_TRY(ConfigNode copied, copy_node(pair.second, file, depth + 1));
      node.members.push_back({pair.first.Scalar(), where, std::move(copied)});
    }
  }
  return node;
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

void relocate(ConfigNode& node, const std::string& where) {
  node.where = where;
  for (ConfigNode& item : node.items) relocate(item, where);
  for (ConfigNode::Member& member : node.members) {
    member.where = where;
    relocate(member.value, where);
  }
}

std::string_view describe(const ConfigNode& node) {
  switch (node.type) {
    case ConfigNode::Type::kNull:
      return "nothing";
    case ConfigNode::Type::kScalar:
      return node.scalar;
    case ConfigNode::Type::kList:
      return "a list";
    case ConfigNode::Type::kMapping:
      return "a mapping";
  }
  return "";
}

}  // namespace

Result<ConfigNode> parse_config(std::string_view text, std::string_view file) {
  if (text.size() > kConfigBytesMax) {
    return fail(Code::kInvalid, "{}: longer than {} bytes", file, kConfigBytesMax);
  }
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    if (root.IsNull()) {
      ConfigNode empty;
      empty.type = ConfigNode::Type::kMapping;
      empty.where = fmt::format("{}:1:1", file);
      return empty;
    }
    CAPSTAN_TRY(ConfigNode node, copy_node(root, file, 0));
    if (node.type != ConfigNode::Type::kMapping) {
      return fail(Code::kInvalid, "{}: the file must be a mapping (key: value)", node.where);
    }
    return node;
  } catch (const YAML::Exception& exception) {
    return fail(Code::kInvalid, "{}: {}", position(file, exception.mark), exception.msg);
  } catch (const std::exception& exception) {
    return fail(Code::kInvalid, "{}: {}", file, exception.what());
  }
}

Result<void> override_value(ConfigNode& root, std::string_view assignment) {
  const std::string where = fmt::format("--set {}", assignment);
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return fail(Code::kInvalid, "{}: must be key=value, for example --set steps=100", where);
  }
  CAPSTAN_TRY(ConfigNode wrapped, parse_config(fmt::format("v: {}", assignment.substr(equals + 1)), where));
  relocate(wrapped, where);
  ConfigNode* at = &root;
  for (const std::string_view part : split(assignment.substr(0, equals), '.')) {
    if (at->type == ConfigNode::Type::kNull) at->type = ConfigNode::Type::kMapping;
    if (at->type != ConfigNode::Type::kMapping)
      return fail(Code::kInvalid, "{}: '{}' has no keys", where, part);
    const auto found = std::find_if(at->members.begin(), at->members.end(),
                                    [&](const ConfigNode::Member& member) { return member.key == part; });
    if (found != at->members.end()) {
      found->where = where;
      at = &found->value;
    } else {
      at->members.push_back({std::string(part), where, ConfigNode{}});
      at = &at->members.back().value;
      at->where = where;
    }
  }
  *at = std::move(wrapped.members.front().value);
  return {};
}

ConfigReader::ConfigReader(const ConfigNode& node, std::string path, std::vector<std::string>& problems)
    : node_(node), path_(std::move(path)), problems_(problems) {
  for (std::size_t i = 0; i < node_.members.size(); ++i) {
    for (std::size_t earlier = 0; earlier < i; ++earlier) {
      if (node_.members[i].key != node_.members[earlier].key) continue;
      problems_.push_back(fmt::format("{}: '{}' is given twice; first at {}", node_.members[i].where,
                                      name(node_.members[i].key), node_.members[earlier].where));
      break;
    }
  }
}

std::string ConfigReader::name(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

bool ConfigReader::has(std::string_view key) const {
  return std::any_of(node_.members.begin(), node_.members.end(),
                     [&](const ConfigNode::Member& member) { return member.key == key; });
}

std::string ConfigReader::where(std::string_view key) const {
  for (const ConfigNode::Member& member : node_.members) {
    if (member.key == key) return member.value.where;
  }
  return node_.where;
}

void ConfigReader::problem(std::string_view key, std::string message) {
  problems_.push_back(fmt::format("{}: {} {}", where(key), name(key), message));
}

const ConfigNode* ConfigReader::take(std::string_view key) {
  known_.push_back(key);
  for (const ConfigNode::Member& member : node_.members) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

void ConfigReader::integer(std::string_view key, std::int64_t& out, std::int64_t low, std::int64_t high) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  const std::optional<std::int64_t> value =
      node->type == ConfigNode::Type::kScalar ? parse_int(node->scalar) : std::nullopt;
  if (!value || *value < low || *value > high) {
    problem(key, fmt::format("must be an integer from {} to {}, not '{}'", low, high, describe(*node)));
    return;
  }
  out = *value;
}

void ConfigReader::number(std::string_view key, double& out, double low, double high) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  const std::optional<double> value =
      node->type == ConfigNode::Type::kScalar ? parse_number(node->scalar) : std::nullopt;
  if (!value || *value < low || *value > high) {
    problem(key, fmt::format("must be a number from {} to {}, not '{}'", low, high, describe(*node)));
    return;
  }
  out = *value;
}

void ConfigReader::boolean(std::string_view key, bool& out) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  if (node->scalar != "true" && node->scalar != "false") {
    problem(key, fmt::format("must be true or false, not '{}'", describe(*node)));
    return;
  }
  out = node->scalar == "true";
}

void ConfigReader::text(std::string_view key, std::string& out) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  if (node->type != ConfigNode::Type::kScalar || node->scalar.empty()) {
    problem(key, fmt::format("must be a text, not {}", describe(*node)));
    return;
  }
  out = node->scalar;
}

void ConfigReader::choice(std::string_view key, std::string& out,
                          std::initializer_list<std::string_view> choices) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  if (std::find(choices.begin(), choices.end(), node->scalar) == choices.end()) {
    const std::vector<std::string_view> all(choices);
    std::string message = fmt::format("must be {}, not '{}'", fmt::join(all, " or "), describe(*node));
    if (const auto near = nearest(node->scalar, all)) message += fmt::format("; did you mean '{}'?", *near);
    problem(key, std::move(message));
    return;
  }
  out = node->scalar;
}

void ConfigReader::numbers(std::string_view key, std::span<double> out, double low, double high) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  bool good = node->type == ConfigNode::Type::kList && node->items.size() == out.size();
  for (std::size_t i = 0; good && i < out.size(); ++i) {
    const std::optional<double> value = parse_number(node->items[i].scalar);
    good = value && *value >= low && *value <= high;
    if (good) out[i] = *value;
  }
  if (!good) problem(key, fmt::format("must be a list of {} numbers from {} to {}", out.size(), low, high));
}

void ConfigReader::weights(std::string_view key, std::vector<std::pair<std::string, double>>& out) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  out.clear();
  if (node->type != ConfigNode::Type::kMapping) {
    problem(key, fmt::format("must be a mapping of names to weights, not '{}'", describe(*node)));
    return;
  }
  ConfigReader inner(*node, name(key), problems_);  // reports duplicates
  for (const ConfigNode::Member& member : node->members) {
    double weight = 0;
    inner.number(member.key, weight, 0, 1e6);
    out.emplace_back(member.key, weight);
  }
}

void ConfigReader::section(std::string_view key, const std::function<void(ConfigReader&)>& read) {
  const ConfigNode* node = take(key);
  if (node == nullptr || node->type == ConfigNode::Type::kNull) return;
  if (node->type != ConfigNode::Type::kMapping) {
    problem(key, fmt::format("must be a section (indented keys), not '{}'", describe(*node)));
    return;
  }
  ConfigReader inner(*node, name(key), problems_);
  read(inner);
  inner.finish();
}

void ConfigReader::finish() {
  for (const ConfigNode::Member& member : node_.members) {
    if (std::find(known_.begin(), known_.end(), member.key) != known_.end()) continue;
    std::string message = fmt::format("{}: unknown key '{}'", member.where, name(member.key));
    if (const auto near = nearest(member.key, known_)) message += fmt::format("; did you mean '{}'?", *near);
    problems_.push_back(std::move(message));
  }
}

}  // namespace capstan::trainer

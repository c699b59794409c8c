// ConfigTree: YAML as a tree that knows where everything stands, and a strict reader over it.
//
//   CAPSTAN_TRY(ConfigNode root, parse_config(text, "train.yaml"));
//   CAPSTAN_CHECK(override_value(root, "optimizer.learning_rate=1e-3"));
//   std::vector<std::string> problems;
//   ConfigReader reader(root, "", problems);
//   reader.integer("steps", config.steps, 1, 1'000'000);
//   reader.section("model", [&](ConfigReader& model) { model.integer("layers", config.layers, 1, 1000); });
//   reader.finish();                       // whatever was not asked for is unknown
//
// Every problem is one line, "train.yaml:3:5: model.layers must be …". Duplicate keys are problems. The
// reader collects all of them, so that a person fixes a file in one go. A key that is absent leaves its
// target as it is. Bounds: kConfigBytesMax, kConfigDepthMax.  Exceptions of yaml-cpp stop in config_tree.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace capstan::trainer {

inline constexpr std::uint64_t kConfigBytesMax = 1u << 20;
inline constexpr int kConfigDepthMax = 8;

struct ConfigNode {
  enum class Type { kNull, kScalar, kList, kMapping };
  Type type = Type::kNull;
  std::string where;  // "train.yaml:3:5", or "--set steps=x" for an override
  std::string scalar;
  std::vector<ConfigNode> items;
  struct Member;
  std::vector<Member> members;
};
struct ConfigNode::Member {
  std::string key;
  std::string where;  // of the key
  ConfigNode value;
};

// An empty text is an empty mapping. Failure: kInvalid with FILE:LINE:COLUMN.
Result<ConfigNode> parse_config(std::string_view text, std::string_view file);

// "a.b=value": replaces or adds the member; the value is itself YAML.
Result<void> override_value(ConfigNode& root, std::string_view assignment);

class ConfigReader {
 public:
  ConfigReader(const ConfigNode& node, std::string path, std::vector<std::string>& problems);

  void integer(std::string_view key, std::int64_t& out, std::int64_t low, std::int64_t high);
  void number(std::string_view key, double& out, double low, double high);
  void boolean(std::string_view key, bool& out);
  void text(std::string_view key, std::string& out);
  void choice(std::string_view key, std::string& out, std::initializer_list<std::string_view> choices);
  void numbers(std::string_view key, std::span<double> out, double low, double high);
  void weights(std::string_view key, std::vector<std::pair<std::string, double>>& out);
  // Calls `read` with the section's reader if the key is there, and reports what it did not ask for.
  void section(std::string_view key, const std::function<void(ConfigReader&)>& read);
  bool has(std::string_view key) const;
  // Where the key stands, or the section itself: for problems that the caller finds.
  std::string where(std::string_view key) const;
  void problem(std::string_view key, std::string message);
  void finish();

 private:
  const ConfigNode* take(std::string_view key);
  std::string name(std::string_view key) const;

  const ConfigNode& node_;
  std::string path_;
  std::vector<std::string>& problems_;
  std::vector<std::string_view> known_;
};

}  // namespace capstan::trainer

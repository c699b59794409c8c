// Reads YAML into a small tree that knows where everything stands, so that messages can say file:line:column.
//
// Duplicate keys are kept (the reader of a mapping reports them). Anchors and aliases work; a text whose
// aliases multiply past kYamlNodesMax nodes, or nested deeper than kYamlDepthMax, is refused.
// Exceptions of yaml-cpp stop here.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "workload/spec.h"

namespace capstan::workload {

inline constexpr int kYamlNodesMax = 200'000;
inline constexpr int kYamlDepthMax = 32;

struct Yaml {
  enum class Type { kNull, kScalar, kSequence, kMapping };
  struct Key {
    std::string text;
    int line = 0;
    int column = 0;
  };
  Type type = Type::kNull;
  int line = 0;  // 1-based
  int column = 0;
  std::string scalar;
  std::vector<Yaml> items;                    // of a sequence
  std::vector<std::pair<Key, Yaml>> members;  // of a mapping, in file order
  std::string_view type_name() const;         // "nothing", "a value", "a list", "a mapping"
};

// Every document; a null document (only comments) is left out.
std::expected<std::vector<Yaml>, Diagnostic> read_yaml(std::string_view text, std::string_view source);

}  // namespace capstan::workload

// How json_schema.h compiles: one function per kind of value. Private to this folder.
//
// A schema that is referred to, repeated in an array or joined from several becomes a rule; rules are known
// by the text of their schema, so recursion ends and equal schemas share one. Bodies of rules are compiled
// from a queue: the depth of the C++ stack is that of the schema's text, not of its references.
#pragma once

#include <deque>
#include <map>

#include "base/json.h"
#include "engine/grammar/dfa.h"
#include "engine/grammar/json_rules.h"
#include "engine/grammar/schema_merge.h"

namespace capstan::engine {

class SchemaCompiler {
 public:
  SchemaCompiler(GrammarBuilder& build, const Json& root)
      : build_(build),
        root_(root),
        json_(build),
        merge_([this](const std::string& ref) { return target(ref); }) {}

  Result<RuleId> compile();

 private:
  struct Pending {
    RuleId rule;
    Json schema;
    std::string pointer;
  };
  struct Property {
    std::string name;
    Json schema;
    bool required = false;
  };
  // Keys that the schema does not name, and the rule of their values.
  struct Extra {
    NodeId key_begin, key_end;
    RuleId value;
  };

  RuleId rule_for(const Json& schema, const std::string& pointer);
  Result<Json> target(const std::string& reference) const;
  // Each writes the value's text from `from` and gives the node behind.
  Result<NodeId> value(const Json& schema, const std::string& pointer, NodeId from);
  Result<NodeId> branches(const Json& schema, std::string_view keyword, const std::string& pointer,
                          NodeId from);
  Result<NodeId> literals(const Json& schema, const std::string& pointer, NodeId from);
  Result<NodeId> typed(const Json& schema, std::string_view type, const std::string& pointer, NodeId from);
  Result<NodeId> string(const Json& schema, const std::string& pointer, NodeId from);
  Result<NodeId> number(const Json& schema, bool integer, const std::string& pointer, NodeId from);
  Result<NodeId> array(const Json& schema, const std::string& pointer, NodeId from);
  Result<NodeId> object(const Json& schema, const std::string& pointer, NodeId from);

  Result<std::vector<Property>> properties(const Json& schema, const std::string& pointer);
  Result<std::vector<Extra>> extras(const Json& schema, const std::vector<Property>& named,
                                    const std::string& pointer);
  Result<NodeId> member(const Property& property, const std::string& pointer, NodeId from);
  NodeId extra_members(const std::vector<Extra>& extras, std::vector<NodeId> counted, NodeId end,
                       std::uint32_t min, std::uint32_t max);
  // Many patterns may not cost more than a few large ones.
  Result<void> spend(const Dfa& dfa, const std::string& pointer);
  Result<Dfa> text_of(const Json& schema, const std::string& pointer);
  Result<bool> admits(const Json& schema, const Json& literal, const std::string& pointer);
  // A bound of the schema: absent gives `otherwise`; kInvalid if it is no integer from 0.
  Result<std::uint32_t> count(const Json& schema, std::string_view keyword, std::uint32_t otherwise,
                              const std::string& pointer) const;

  GrammarBuilder& build_;
  const Json& root_;
  JsonRules json_;
  SchemaMerge merge_;
  std::map<std::string, RuleId> rules_;
  std::deque<Pending> pending_;
  int work_ = 0;
  std::size_t dfa_states_ = 0;  // of all patterns so far
};

// An error at pointer/keyword.
std::unexpected<Error> schema_error(const std::string& pointer, std::string_view keyword,
                                    std::string_view why);
// "/a" + "b/c" -> "/a/b~1c"
std::string pointer_to(const std::string& pointer, std::string_view key);

}  // namespace capstan::engine

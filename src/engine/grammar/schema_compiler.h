// How json_schema.h compiles: one function per kind of value. Private to this folder.
//
// A schema that is referred to, repeated in an array or joined from several becomes a rule; rules are known
// by the text of their schema, so recursion ends and equal schemas share one. Bodies of rules are compiled
// from a queue: the depth of the C++ stack is that of the schema's text, not of its references.
#pragma once

#include <deque>
#include <map>
#include <optional>

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
  // Keys that the schema does not name (no set: any), and the rule of their values.
  struct Extra {
    std::optional<Dfa> keys;
    RuleId value;
  };

  RuleId rule_for(const Json& schema, const std::string& pointer);
  Result<Json> target(const std::string& reference) const;
  // Each writes the value's text from `from` and gives the node behind.
  Result<NodeId> value(const Json& schema, const std::string& pointer, NodeId from);
  Result<NodeId> branches(const Json& schema, const std::string& pointer, NodeId from);
  Result<NodeId> literals(const Json& schema, const std::string& pointer, NodeId from);
  Result<NodeId> typed(const Json& schema, std::string_view type, const std::string& pointer, NodeId from);
  Result<NodeId> string(const Json& schema, const std::string& pointer, NodeId from);
  Result<NodeId> number(const Json& schema, bool integer, const std::string& pointer, NodeId from);
  Result<NodeId> array(const Json& schema, const std::string& pointer, NodeId from);
  Result<NodeId> object(const Json& schema, const std::string& pointer, NodeId from);

  // What may be at one place of an array: an item that counts for `contains`, or another.
  struct ItemRules {
    std::optional<RuleId> other, contained;
  };
  Result<ItemRules> item_rules(const Json& schema, const Json& item, bool limited,
                               const std::string& pointer);
  Result<std::optional<NodeId>> unique_items(const Json& schema, std::uint32_t min, std::uint32_t max,
                                             const std::string& pointer, NodeId from);
  // All values of a schema, if they are few.
  Result<std::optional<std::vector<Json>>> all_values(const Json& schema, const std::string& pointer);
  // The constants as one tree, to `behind`.
  void emit_constants(const std::vector<Json>& values, NodeId from, NodeId behind);

  Result<std::vector<Property>> properties(const Json& schema, const std::string& pointer);
  Result<void> bind_by_patterns(const Json& schema, Property& property, bool named,
                                const std::string& pointer);
  Result<std::vector<Extra>> extras(const Json& schema, const std::vector<Property>& named, bool open,
                                    const std::string& pointer);
  Result<std::vector<NodeId>> property_step(const Property& property, const std::vector<NodeId>& counted,
                                            std::uint32_t max, const std::string& pointer);
  Result<NodeId> member(const Property& property, const std::string& pointer, NodeId from);
  Result<RuleId> members_of(const std::vector<Extra>& extras, const std::optional<Dfa>& lengths,
                            const std::string& pointer);
  Result<void> extra_members(const std::vector<Extra>& extras, const std::vector<NodeId>& counted, NodeId end,
                             std::uint32_t min, std::uint32_t max, const std::string& pointer);
  Result<void> pattern_extras(const Json& schema, const Dfa& unnamed, const Json& others,
                              const std::string& pointer, std::vector<Extra>& out);
  // Many patterns may not cost more than a few large ones.
  Result<void> spend(const Dfa& dfa, const std::string& pointer);
  Result<Dfa> text_of(const Json& schema, const std::string& pointer);
  Result<Dfa> without_texts(Dfa dfa, const Json& schema, const std::string& pointer);
  Result<Dfa> texts_under(const Json& schema, const std::string& pointer, int depth = 0);
  Result<bool> allows_strings(const Json& schema, const std::string& pointer) const;
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

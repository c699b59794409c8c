// Combinations of schemas -> one plain schema, or a choice (anyOf) of plain ones. Private to this folder.
//
// flat() takes $ref, allOf, oneOf, not, if/then/else, const, dependentRequired, dependentSchemas and what
// older drafts wrote otherwise out of a schema's top; below it, schemas stay as they are. Patterns and
// formats of the result stand under kPatterns, kNotPatterns and kNotTexts, constants under enum. What cannot
// be is `false`.
//
// A negation (schema_negation.h) may leave out values, never let one in; so may a oneOf whose branches
// overlap. A oneOf whose branches cannot be told apart at all is read as anyOf. Failure: kInvalid, with the
// keyword as its `field`, where the conjunction of two values of a keyword is no value of it, or beyond
// kMergesMax joins.
#pragma once

#include <functional>
#include <string>

#include "base/json.h"
#include "engine/grammar/schema_values.h"

namespace capstan::engine {

inline constexpr std::string_view kPatterns = "\x01\x02patterns";         // texts match all of these,
inline constexpr std::string_view kNotPatterns = "\x01\x02not patterns";  // none of these,
inline constexpr std::string_view kNotTexts = "\x01\x02not texts";        // and are none of these;
inline constexpr std::string_view kNotMultiples =
    "\x01\x02not multiples";  // numbers are multiples of none of these

// A word that constrains nothing.
bool is_annotation(std::string_view keyword);
// Is it a word that flat() takes away?
bool is_combination(std::string_view keyword);

class SchemaMerge {
 public:
  using Resolve = std::function<Result<Json>(const std::string& reference)>;
  // `resolve`: what a $ref stands for.
  explicit SchemaMerge(Resolve resolve) : resolve_(std::move(resolve)), values_(resolve_) {}

  Result<Json> both(const Json& a, const Json& b) { return both(a, b, 0); }
  Result<Json> flat(const Json& schema) { return flat(schema, 0); }
  SchemaValues& values() { return values_; }

 private:
  Result<Json> both(const Json& a, const Json& b, int depth);
  Result<Json> flat(const Json& schema, int depth);
  // A keyword that combines schemas, as further schemas to be joined.
  Result<void> take_apart(const Json& schema, const Json::Member& member, std::vector<Json>& others,
                          int depth);
  Result<Json> exactly_one(const Json& list, int depth);
  bool are_disjoint(const Json& a, const Json& b, int depth);
  Result<void> add_keyword(Json& into, const std::string& key, const Json& value, int depth);
  Result<void> join_properties(Json& out, const Json& a, const Json& b, int depth);
  Result<void> join_patterns(Json& out, const Json& a, const Json& b, int depth);
  Result<void> join_items(Json& out, const Json& a, const Json& b, int depth);
  Result<void> join_branches(Json& out, const Json& a, const Json& b, int depth);
  Json possible(const Json& base, const Json& branches, int depth);
  // Of a value inside: joined now, or, deep down, when it is compiled.
  Result<Json> inner(const Json& a, const Json& b, int depth);
  Result<bool> is_impossible(Json& schema);

  Resolve resolve_;
  SchemaValues values_;
  int work_ = 0;
};

}  // namespace capstan::engine

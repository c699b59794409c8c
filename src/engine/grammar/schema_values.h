// Does a value satisfy a schema? For constants beside other keywords, and for finite sets of items. Private
// to this folder.
//
// Knows every keyword that json_schema.h enforces, with its full meaning, and what SchemaMerge makes of them.
// Formats are what formats.h writes of them. Failure: kInvalid where a pattern cannot be read or references
// do not end. Threads: one owner.  Cost: patterns are compiled once each.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "base/json.h"
#include "engine/grammar/dfa.h"

namespace capstan::engine {

// JSON schema's equality: 1 is 1.0, and the order of members does not matter.
bool same_value(const Json& a, const Json& b);

class SchemaValues {
 public:
  // `resolve`: what a $ref stands for.
  explicit SchemaValues(std::function<Result<Json>(const std::string& reference)> resolve)
      : resolve_(std::move(resolve)) {}

  Result<bool> fits(const Json& schema, const Json& value) { return fits(schema, value, 0); }
  // The pattern's set of texts, as JSON schema searches it.
  Result<const Dfa*> pattern(const std::string& text);

 private:
  Result<bool> fits(const Json& schema, const Json& value, int depth);
  Result<bool> combined_fits(const Json& schema, const Json& value, int depth);
  Result<bool> number_fits(const Json& schema, const Json& value);
  Result<bool> string_fits(const Json& schema, const std::string& text);
  Result<bool> array_fits(const Json& schema, const Json& value, int depth);
  Result<bool> object_fits(const Json& schema, const Json& value, int depth);
  Result<bool> member_fits(const Json& schema, const Json::Member& member, int depth);
  Result<std::size_t> count_fits(const Json& schemas, const Json& value, int depth);

  std::function<Result<Json>(const std::string&)> resolve_;
  std::map<std::string, Dfa> patterns_;
};

}  // namespace capstan::engine

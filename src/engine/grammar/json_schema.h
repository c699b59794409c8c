// JSON schema -> Grammar: what is generated under it satisfies the schema, whatever the model says.
//
//   CAPSTAN_TRY(auto grammar, compile_json_schema(*Json::parse(R"({"type":"object", …})")));
//
// Enforced: type (also lists), enum, const, properties, required, additionalProperties, patternProperties,
// propertyNames, minProperties, maxProperties, items, prefixItems, minItems, maxItems, minLength, maxLength,
// pattern, format, minimum, maximum, exclusive ones, multipleOf, anyOf, oneOf, allOf, $ref within the
// document, $defs, nullable, true, false. Annotations (title, description, default, examples, $comment, …)
// and words that JSON schema does not define are allowed and mean nothing, as the standard says. What is left
// (not, if, contains, uniqueItems, …) is refused: an error is kInvalid, its message names the keyword and the
// reason, its `field` is the JSON pointer ("/properties/a/not").
//
// Narrower than the schema, never wider (docs/structured-output.md lists it): properties come in the schema's
// order; properties that the schema does not name only where additionalProperties is written; a oneOf is read
// as anyOf. Bounds: kSchemaBytesMax, kSchemaWorkMax subschemas looked at, and grammar.h's. Threads: pure.
#pragma once

#include "base/json.h"
#include "engine/grammar/grammar.h"

namespace capstan::engine {

inline constexpr std::size_t kSchemaBytesMax = 256u << 10;
inline constexpr int kSchemaWorkMax = 20'000;

Result<std::shared_ptr<const Grammar>> compile_json_schema(const Json& schema);
// The same into a builder that holds other rules, too: the rule for the value.
Result<RuleId> add_json_schema(GrammarBuilder& build, const Json& schema);
// Any JSON object.
RuleId add_json_object(GrammarBuilder& build);

}  // namespace capstan::engine

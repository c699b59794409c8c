// What makes a value break a schema, as schemas: each that the result lists is satisfied only by values that
// break it. Private to this folder.
//
// The list may leave values out (`lost`): what breaks a format, a multiple, a set of property names cannot be
// said as a schema. Subschemas of what is negated appear as {"not": …}, so the cost is that of one schema's
// keywords. Failure: kInvalid where a reference leads nowhere. Threads: pure.
#pragma once

#include <vector>

#include "base/json.h"
#include "engine/grammar/schema_merge.h"

namespace capstan::engine {

struct Negation {
  std::vector<Json> any = {};
  bool lost = false;
};
Result<Negation> negation(const Json& schema, const SchemaMerge::Resolve& resolve);

// The schema with the words of drafts 4 to 7 as 2020-12 writes them: exclusiveMinimum and exclusiveMaximum
// true, lists of items, dependencies.
Json modern(const Json& schema);

}  // namespace capstan::engine

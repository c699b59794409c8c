// allOf: two schemas -> one that means both. Private to this folder.
//
// Patterns and formats of the result stand as a list of patterns under kPatterns. Failure: kInvalid, with the
// keyword as its `field`, where the conjunction of two values of a keyword is no value of it.
#pragma once

#include <functional>
#include <string>

#include "base/json.h"

namespace capstan::engine {

inline constexpr std::string_view kPatterns = "\x01patterns";

// A word that constrains nothing.
bool is_annotation(std::string_view keyword);

class SchemaMerge {
 public:
  // `resolve`: what a $ref stands for.
  explicit SchemaMerge(std::function<Result<Json>(const std::string& reference)> resolve)
      : resolve_(std::move(resolve)) {}

  Result<Json> both(const Json& a, const Json& b) { return both(a, b, 0); }
  // The schema without $ref and allOf at its top, which are merged into it.
  Result<Json> flat(const Json& schema) { return flat(schema, 0); }

 private:
  Result<Json> both(const Json& a, const Json& b, int depth);
  Result<Json> flat(const Json& schema, int depth);
  Result<void> add_keyword(Json& into, const std::string& key, const Json& value, int depth);
  Result<Json> properties_of_both(const Json& a, const Json& b, int depth);

  std::function<Result<Json>(const std::string&)> resolve_;
  int work_ = 0;
};

}  // namespace capstan::engine

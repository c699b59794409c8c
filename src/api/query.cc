#include "api/query.h"

#include "base/text.h"

namespace capstan::api {

Result<std::int64_t> query_number(const http::Request& request, std::string_view name,
                                  std::int64_t otherwise) {
  const auto text = request.query_value(name);
  if (!text) return otherwise;
  const auto value = parse_int(*text);
  if (!value || *value < 0)
    return fail(Code::kInvalid, "'{}' must be a whole number from 0, not '{}'", name, *text);
  return *value;
}

}  // namespace capstan::api

#include "gateway/openai/endpoints.h"

#include <algorithm>

#include "base/text.h"
#include "gateway/openai/responses_checks.h"

namespace capstan::gateway::openai {

http::Response answer_of(const std::expected<Json, ApiError>& result) {
  return result ? http::Response::json(200, *result) : to_response(result.error());
}

http::Response answer_of(const Result<Json>& result) {
  return result ? http::Response::json(200, *result) : answer_of(result.error());
}

http::Response answer_of(const Error& error) {
  if (error.code == Code::kNotFound) return to_response({.status = 404, .message = error.message, .param = error.field});
  if (error.code == Code::kInvalid) return to_response({.message = error.message, .param = error.field, .code = "invalid_value"});
  if (error.code == Code::kExhausted)
    return to_response({.status = 413, .message = error.message, .code = "file_too_large"});
  return to_response({.status = 500, .message = error.message, .type = "server_error"});
}

std::expected<Paging, ApiError> paging_of(const http::Request& request, std::int64_t otherwise, std::int64_t most,
                                          Order usual) {
  Paging paging{.limit = otherwise, .after = request.query_value("after").value_or("")};
  if (const auto asked = request.query_value("limit")) {
    const auto limit = parse_int(*asked);
    if (!limit) return wrong("limit", fmt::format("Invalid 'limit': expected an integer, but got '{}'.", *asked), "invalid_type");
    if (*limit < 1 || *limit > most)
      return wrong("limit", fmt::format("Invalid 'limit': expected a value from 1 to {}, but got {} instead.", most, *limit),
                   *limit < 1 ? "integer_below_min_value" : "integer_above_max_value");
    paging.limit = *limit;
  }
  const std::string order = request.query_value("order").value_or(usual == Order::kAscending ? "asc" : "desc");
  if (order != "asc" && order != "desc")
    return wrong("order", fmt::format("Invalid value: '{}'. Supported values are: 'asc' and 'desc'.", order));
  paging.ascending = order == "asc";
  return paging;
}

bool wants_outputs(const http::Request& request) {
  for (const std::string_view name : {"include", "include[]", "include[0]"}) {
    if (request.query_value(name) == "code_interpreter_call.outputs") return true;
  }
  return false;
}

Json page_of(Json::Array items, const Paging& paging) {
  if (!paging.ascending) std::ranges::reverse(items);
  if (!paging.after.empty()) {
    const auto at = std::ranges::find_if(items, [&](const Json& item) { return item.get_string("id") == paging.after; });
    if (at != items.end()) items.erase(items.begin(), at + 1);
  }
  const auto limit = static_cast<std::size_t>(paging.limit);
  const bool more = items.size() > limit;
  if (more) items.resize(limit);
  Json first, last;
  if (!items.empty()) first = *items.front().find("id");
  if (!items.empty()) last = *items.back().find("id");
  return Json::object({{"object", "list"},
                       {"data", std::move(items)},
                       {"first_id", std::move(first)},
                       {"last_id", std::move(last)},
                       {"has_more", more}});
}

void route(Gateway& gateway, std::string method, std::string pattern,
           std::function<http::Response(const http::Request&, const Caller&)> answer) {
  gateway.add_endpoint(
      std::move(method), std::move(pattern),
      [answer = std::move(answer)](const http::Request& request, const CallerPtr& caller,
                                   const http::ResponseWriterPtr& writer) {
        writer->respond(with_id(request, answer(request, *caller)));
      },
      to_response);
}

}  // namespace capstan::gateway::openai

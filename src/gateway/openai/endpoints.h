// What routes without a replica behind them have in common: ids, errors, pages. Private to this folder.
//
// Threads: pure, but route().
#pragma once

#include <expected>
#include <functional>
#include <string>

#include "base/json.h"
#include "gateway/gateway.h"
#include "gateway/openai_error.h"

namespace capstan::gateway::openai {

// A route whose answer is computed from the request and who sent it.
void route(Gateway& gateway, std::string method, std::string pattern,
           std::function<http::Response(const http::Request&, const Caller&)> answer);

http::Response answer_of(const std::expected<Json, ApiError>& result);
http::Response answer_of(const Result<Json>& result);
http::Response answer_of(const Error& error);

// How a list is asked for: ?limit=20&order=desc&after=ID
struct Paging {
  std::int64_t limit = 0;
  bool ascending = false;
  std::string after;
};
enum class Order { kDescending, kAscending };  // where the request names none
std::expected<Paging, ApiError> paging_of(const http::Request& request, std::int64_t otherwise, std::int64_t most,
                                          Order order = Order::kDescending);
// One page of items that are given oldest first.
Json page_of(Json::Array items, const Paging& paging);

// Whether `include` asks for what code printed.
bool wants_outputs(const http::Request& request);

}  // namespace capstan::gateway::openai

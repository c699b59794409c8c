#include "engine/server/kv_blocks.h"

#include <charconv>

#include "base/text.h"
#include "base/token_chain.h"
#include "engine/server/answer.h"
#include "engine/server/chat_answer.h"

namespace capstan::engine {
namespace {

constexpr std::int64_t kChangesMax = 10'000;  // in one answer

std::string hex(std::uint64_t value) { return fmt::format("{:016x}", value); }

std::optional<std::uint64_t> read_hex(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

http::Response kv_blocks(const ServedModel& model, const http::Request& request) {
  const KvReport* report = model.source->kv_report();
  if (report == nullptr)
    return error_response({.status = 404, .message = "This server runs without a prefix cache.", .code = "no_prefix_cache"});
  const auto epoch = read_hex(request.query_value("epoch").value_or("0"));
  const auto since = parse_int(request.query_value("since").value_or("0"));
  if (!epoch) return error_response(ApiError::bad_value("epoch", "Invalid 'epoch': expected up to 16 hexadecimal digits."));
  if (!since || *since < 0) return error_response(ApiError::bad_value("since", "Invalid 'since': expected a number from 0 on."));
  const KvReport::Page page = report->since(*epoch, static_cast<std::uint64_t>(*since), kChangesMax);
  Json changes = Json::array();
  for (const KvReport::Change& change : page.changes) {
    changes.push_back(change.added ? Json::array({"+", hex(change.name), hex(change.before)})
                                   : Json::array({"-", hex(change.name)}));
  }
  return http::Response::json(200, Json::object({{"epoch", hex(page.epoch)},
                                                 {"sequence", static_cast<std::int64_t>(page.sequence)},
                                                 {"block_tokens", KvPool::kBlockTokens},
                                                 {"reset", page.reset},
                                                 {"more", page.more},
                                                 {"changes", std::move(changes)}}));
}

http::Response prompt_blocks(const ServedModel& model, std::string_view body) {
  const auto request = parse_chat_request(body);
  if (!request) return error_response(request.error());
  if (request->model != model.name) return error_response(ApiError::model_not_found(request->model));
  const std::vector<TokenId> prompt = render_chat(model, *request);
  Json blocks = Json::array();
  for (const std::uint64_t name : token_chain(prompt, KvPool::kBlockTokens)) blocks.push_back(hex(name));
  return http::Response::json(200, Json::object({{"prompt_tokens", static_cast<std::int64_t>(prompt.size())},
                                                 {"block_tokens", KvPool::kBlockTokens},
                                                 {"blocks", std::move(blocks)}}));
}

}  // namespace capstan::engine

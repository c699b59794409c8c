#include "gateway/openai/batch_lines.h"

#include <unordered_set>

#include "base/text.h"

namespace capstan::gateway::openai {
namespace {

struct Wrong {
  std::string code, message, param = {};
};

std::expected<BatchLine, Wrong> parse_line(std::string_view text, std::string_view endpoint) {
  auto json = Json::parse(text);
  if (!json || !json->is_object())
    return std::unexpected(Wrong{"invalid_json_line", fmt::format("This line is not a JSON object{}",
                                                                  json ? "" : ": " + json.error().message)});
  const auto id = json->get_string("custom_id");
  if (!id || id->empty())
    return std::unexpected(
        Wrong{"missing_required_parameter", "Missing required parameter: 'custom_id'.", "custom_id"});
  if (json->get_string("method") != "POST")
    return std::unexpected(Wrong{"invalid_method", "'method' must be POST.", "method"});
  if (json->get_string("url") != endpoint)
    return std::unexpected(Wrong{"mismatched_endpoint",
                                 fmt::format("'url' must be the batch's endpoint, {}.", endpoint), "url"});
  Json* body = json->find("body");
  if (body == nullptr || !body->is_object())
    return std::unexpected(Wrong{"missing_required_parameter", "'body' must be an object.", "body"});
  body->erase("stream");
  body->erase("stream_options");
  body->erase("background");
  return BatchLine{*id, body->dump()};
}

}  // namespace

std::expected<std::vector<BatchLine>, Json> parse_batch_lines(std::string_view text,
                                                              std::string_view endpoint) {
  std::vector<BatchLine> lines;
  std::unordered_set<std::string> ids;
  Json errors = Json::array();
  std::int64_t number = 0;
  const auto wrong = [&](const Wrong& what) {
    if (errors.size() >= kBatchErrorsMax) return;
    errors.push_back(Json::object({{"code", what.code},
                                   {"line", number == 0 ? Json() : Json(number)},
                                   {"message", what.message},
                                   {"param", what.param.empty() ? Json() : Json(what.param)}}));
  };
  if (text.size() > kBatchBytesMax) {
    wrong({"file_too_large", fmt::format("The file of a batch may have {} bytes.", kBatchBytesMax)});
    return std::unexpected(std::move(errors));
  }
  for (const std::string_view raw : split(text, '\n')) {
    ++number;
    if (trim(raw).empty()) continue;
    auto line = parse_line(raw, endpoint);
    if (!line) {
      wrong(line.error());
    } else if (!ids.insert(line->custom_id).second) {
      wrong({"duplicate_custom_id",
             fmt::format("The custom_id '{}' stands in an earlier line.", line->custom_id), "custom_id"});
    } else {
      lines.push_back(*std::move(line));
    }
    if (lines.size() > kBatchLinesMax) break;
  }
  number = 0;
  if (lines.size() > kBatchLinesMax)
    wrong({"too_many_tasks", fmt::format("A batch may have {} requests.", kBatchLinesMax)});
  if (lines.empty() && errors.size() == 0) wrong({"empty_file", "The file holds no request."});
  if (errors.size() > 0) return std::unexpected(std::move(errors));
  return lines;
}

}  // namespace capstan::gateway::openai

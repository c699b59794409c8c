#include "gateway/openai/responses_items.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "base/file.h"
#include "base/text_member.h"
#include "gateway/openai/responses_checks.h"

namespace capstan::gateway::openai {
namespace {

constexpr std::size_t kItemsMax = 8192;

using Status = std::expected<void, OpenAiError>;

// What other servers' tools say; only they could read it.
constexpr std::array<std::string_view, 23> kHostedItems = {
    "additional_tools",       "apply_patch_call",         "apply_patch_call_output", "compaction",
    "compaction_trigger",     "computer_call",            "computer_call_output",    "file_search_call",
    "image_generation_call",  "local_shell_call",         "local_shell_call_output", "mcp_approval_request",
    "mcp_approval_response",  "mcp_call",                 "mcp_list_tools",          "program",
    "program_output",         "shell_call",               "shell_call_output",       "tool_search_call",
    "tool_search_output",     "web_search_call",          "compaction_summary"};

std::string type_of(const Json& item) { return item.get_string("type").value_or("message"); }

// One part of a user's message as chat writes it; null for a part that chat does not have.
std::expected<Json, OpenAiError> part_of(const Json& part, const std::string& path) {
  const std::string type = part.get_string("type").value_or("");
  if (!part.is_object()) return wrong_type(path, "an object", part);
  if (type.empty()) return missing(path + ".type");
  if (type == "input_text" || type == "output_text" || type == "text" || type == "refusal") {
    const std::string_view key = type == "refusal" ? "refusal" : "text";
    const Json* text = given(part, key);
    if (text == nullptr) return missing(fmt::format("{}.{}", path, key));
    if (!text->is_string()) return wrong_type(fmt::format("{}.{}", path, key), "a string", *text);
    return Json::object({{"type", "text"}, {"text", *text}});
  }
  if (type == "input_image") {
    const auto url = part.get_string("image_url");
    if (!url)
      return wrong(path + ".image_url",
                   fmt::format("'{}.image_url' must be a URL; images of the files API are not read", path));
    Json image = Json::object({{"url", *url}});
    if (const auto detail = part.get_string("detail")) image["detail"] = *detail;
    return Json::object({{"type", "image_url"}, {"image_url", std::move(image)}});
  }
  if (type == "input_file") {
    const auto data = part.get_string("file_data");
    if (!data)
      return wrong(path + ".file_data",
                   fmt::format("'{}' must hold file_data; ids and URLs of files are not read here", path));
    return Json::object({{"type", "file"},
                         {"file", Json::object({{"filename", part.get_string("filename").value_or("file")},
                                                {"file_data", *data}})}});
  }
  if (type == "input_audio" && part.contains("input_audio"))
    return Json::object({{"type", "input_audio"}, {"input_audio", *part.find("input_audio")}});
  return wrong(
      path + ".type",
      fmt::format(
          "'{}.type' must be input_text, input_image, input_file, input_audio, output_text or refusal, "
          "not '{}'",
          path, type));
}

// Content that is a text or a list of parts: a text where all of it is text.
std::expected<Json, OpenAiError> content_of(const Json& item, std::string_view key, const std::string& path) {
  const Json* content = given(item, key);
  if (content == nullptr) return missing(fmt::format("{}.{}", path, key));
  if (content->is_string()) return *content;
  if (!content->is_array())
    return wrong_type(fmt::format("{}.{}", path, key), "one of a string or array of objects", *content);
  Json parts = Json::array();
  std::string text;
  bool only_text = true;
  for (std::size_t i = 0; i < content->size(); ++i) {
    auto part = part_of(content->items()[i], fmt::format("{}.{}[{}]", path, key, i));
    if (!part) return std::unexpected(part.error());
    if (const auto said = part->get_string("text")) {
      text += (text.empty() || said->empty() ? "" : "\n") + *said;
    } else {
      only_text = false;
    }
    parts.push_back(*std::move(part));
  }
  return only_text ? Json(text) : parts;
}

// The reader's state: the assistant's turn that is being put together.
class Messages {
 public:
  Messages(const ItemSources& sources, Json& out) : sources_(sources), out_(out) {}

  Status add(const Json& item, const std::string& path, bool referenced = false) {
    if (!item.is_object())
      return wrong(path, fmt::format("'{}' must be an object, not {}", path, item.type_name()),
                   "invalid_type");
    const std::string type = type_of(item);
    if (type == "message") return add_message(item, path);
    if (type == "reasoning") return add_reasoning(item, path);
    if (type == "function_call" || type == "custom_tool_call")
      return add_call(item, path, type == "custom_tool_call");
    if (type == "function_call_output" || type == "custom_tool_call_output") return add_output(item, path);
    if (type == "code_interpreter_call") return add_code(item);
    if (type == "item_reference" && !referenced) return add_reference(item, path);
    if (std::ranges::find(kHostedItems, type) != kHostedItems.end()) return {};
    return wrong(path + ".type",
                 fmt::format("Invalid value: '{}'. Supported values are: 'message', 'reasoning', 'function_call', "
                             "'function_call_output', 'custom_tool_call', 'custom_tool_call_output', 'code_interpreter_call', "
                             "'item_reference' and those of hosted tools.",
                             type));
  }

  // Every call has its output, as models are trained to see them.
  Status finish() {
    flush();
    if (unanswered_.empty()) return {};
    return wrong("input", fmt::format("No tool output found for function call {}.", *unanswered_.begin()), "");
  }

  void flush() {
    if (content_.empty() && reasoning_.empty() && calls_.empty()) return;
    Json message = Json::object({{"role", "assistant"}, {"content", content_}});
    if (content_.empty() && !calls_.empty()) message["content"] = nullptr;
    if (!reasoning_.empty()) message["reasoning"] = reasoning_;
    if (!calls_.empty()) message["tool_calls"] = std::move(calls_);
    out_.push_back(std::move(message));
    content_.clear();
    reasoning_.clear();
    calls_.clear();
  }

 private:
  Status add_message(const Json& item, const std::string& path) {
    const std::string role = item.get_string("role").value_or("");
    constexpr std::array<std::string_view, 4> kRoles = {"user", "assistant", "system", "developer"};
    if (std::ranges::find(kRoles, role) == kRoles.end())
      return wrong(
          path + ".role",
          fmt::format("'{}.role' must be user, assistant, system or developer, not '{}'", path, role));
    auto content = content_of(item, "content", path);
    if (!content) return std::unexpected(content.error());
    if (role != "assistant") {
      flush();
      out_.push_back(Json::object({{"role", role}, {"content", *std::move(content)}}));
      return {};
    }
    if (!content->is_string())
      return wrong(path + ".content", fmt::format("'{}': an assistant says text only", path));
    if (!content_.empty() && calls_.empty()) flush();
    content_ += content->as_string();
    return {};
  }

  Status add_reasoning(const Json& item, const std::string& path) {
    if (!content_.empty() || !calls_.empty()) flush();
    std::string text;
    for (const std::string_view key : {"content", "summary"}) {
      const Json* parts = item.find(key);
      if (!text.empty() || parts == nullptr || !parts->is_array()) continue;
      for (const Json& part : parts->items()) text += part.get_string("text").value_or("");
    }
    if (const auto blob = item.get_string("encrypted_content"); text.empty() && blob && !blob->empty()) {
      const auto opened = sources_.open(*blob);
      if (!opened)
        return wrong(
            path + ".encrypted_content",
            fmt::format(
                "'{}.encrypted_content' was not made by this server, or was changed; leave the item out",
                path),
            "invalid_encrypted_content");
      text = *opened;
    }
    reasoning_ += text;
    return {};
  }

  Status add_call(const Json& item, const std::string& path, bool custom) {
    const auto id = item.get_string("call_id"), name = item.get_string("name");
    const auto arguments = item.get_string(custom ? "input" : "arguments");
    if (!id || !name || !arguments)
      return wrong(path,
                   fmt::format("'{}' must hold the strings call_id, name and {}", path,
                               custom ? "input" : "arguments"),
                   "missing_required_parameter");
    unanswered_.insert(*id);
    known_.insert(*id);
    const std::string text = custom ? Json::object({{std::string(kInputArgument), *arguments}}).dump() : *arguments;
    calls_.push_back(Json::object({{"id", *id},
                                   {"type", "function"},
                                   {"function", Json::object({{"name", *name}, {"arguments", text}})}}));
    return {};
  }

  Status add_output(const Json& item, const std::string& path) {
    const auto id = item.get_string("call_id");
    if (!id) return missing(path + ".call_id");
    if (!known_.contains(*id))
      return wrong("input", fmt::format("No tool call found for function call output with call_id {}.", *id), "");
    unanswered_.erase(*id);
    auto content = content_of(item, "output", path);
    if (!content) return std::unexpected(content.error());
    flush();
    out_.push_back(Json::object({{"role", "tool"}, {"tool_call_id", *id}, {"content", *std::move(content)}}));
    return {};
  }

  // A call that ran here, and what came of it; skipped where that is not told.
  Status add_code(const Json& item) {
    const auto id = item.get_string("id"), code = item.get_string("code");
    const Json* outputs = item.find("outputs");
    if (!id || !code || outputs == nullptr || !outputs->is_array()) return {};
    std::string logs;
    for (const Json& output : outputs->items()) logs += output.get_string("logs").value_or("");
    const std::string arguments = Json::object({{std::string(kCodeArgument), *code}}).dump();
    calls_.push_back(Json::object({{"id", *id},
                                   {"type", "function"},
                                   {"function", Json::object({{"name", kCodeFunction}, {"arguments", arguments}})}}));
    flush();
    out_.push_back(Json::object({{"role", "tool"}, {"tool_call_id", *id}, {"content", logs}}));
    return {};
  }

  Status add_reference(const Json& item, const std::string& path) {
    const std::string id = item.get_string("id").value_or("");
    const auto found = sources_.find(id);
    if (!found)
      return std::unexpected(OpenAiError{
          .status = 404,
          .message = fmt::format("Item with id '{}' not found; items are kept with responses that are "
                                 "stored (store: true)",
                                 id),
          .param = "input",
          .code = "item_not_found"});
    return add(*found, path, true);
  }

  const ItemSources& sources_;
  Json& out_;
  std::string content_, reasoning_;
  Json::Array calls_;
  std::set<std::string> known_, unanswered_;  // ids of calls
};

std::string_view prefix_of(const std::string& type) {
  if (type == "reasoning") return "rs_";
  if (type == "function_call") return "fc_";
  if (type == "custom_tool_call") return "ctc_";
  if (type == "code_interpreter_call") return "ci_";
  return type == "message" ? "msg_" : "item_";
}

// As OpenAI returns items: with id and status, and a message's text as a part.
void complete_item(Json& item) {
  if (!item.is_object()) return;  // refused where its path is known
  const std::string type = type_of(item);
  if (type == "item_reference") return;
  if (!item.contains("type")) item["type"] = type;
  if (!item.get_string("id")) item["id"] = std::string(prefix_of(type)) + random_hex(24);
  if (type == "message" || type.ends_with("_call") || type.ends_with("_call_output")) {
    if (given(item, "status") == nullptr) item["status"] = "completed";
  }
  const Json* content = item.find("content");
  if (type != "message" || content == nullptr || !content->is_string()) return;
  Json part = Json::object({{"type", "input_text"}, {"text", *content}});
  if (item.get_string("role") == "assistant")
    part = Json::object(
        {{"type", "output_text"}, {"text", *content}, {"annotations", Json::array()}, {"logprobs", Json::array()}});
  item["content"] = Json::array({std::move(part)});
}

}  // namespace

std::expected<void, OpenAiError> add_items(const Json::Array& items, const ItemSources& sources,
                                           Json& messages) {
  Messages reader(sources, messages);
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (auto added = reader.add(items[i], fmt::format("input[{}]", i)); !added) return added;
  }
  return reader.finish();
}

std::expected<void, OpenAiError> check_item(const Json& item, const std::string& path) {
  if (!item.is_object()) return wrong_type(path, "an object", item);
  const std::string type = type_of(item);
  if (type.ends_with("_output") || type == "reasoning") return {};
  const ItemSources none{[](const std::string&) { return std::nullopt; }, [](const std::string&) { return std::nullopt; }};
  Json ignored = Json::array();
  return Messages(none, ignored).add(item, path);
}

std::expected<Json::Array, OpenAiError> input_items(const Json& input) {
  if (input.is_string()) {
    Json part = Json::object({{"type", "input_text"}, {"text", input}});
    return Json::Array{Json::object({{"type", "message"},
                                     {"id", "msg_" + random_hex(24)},
                                     {"status", "completed"},
                                     {"role", "user"},
                                     {"content", Json::array({std::move(part)})}})};
  }
  if (!input.is_array())
    return wrong("input", "'input' must be a string or an array of items", "invalid_type");
  if (input.size() > kItemsMax)
    return wrong("input", fmt::format("'input' may hold {} items, not {}", kItemsMax, input.size()),
                 "array_above_max_length");
  if (input.size() == 0) return wrong("input", "Invalid 'input': an empty array; give at least one item.", "empty_array");
  Json::Array items = input.items();
  for (Json& item : items) complete_item(item);
  return items;
}

}  // namespace capstan::gateway::openai

// How: the body's shape and the conversation's rules are checked first; behind that, types are what they should be.
// Converse's messages hold blocks of several kinds, chat's messages parts of one role; so a user's
// message with tool results becomes a tool message a result and one user message for the rest.
#include "gateway/bedrock/converse_request.h"

#include <algorithm>
#include <array>

#include "base/base64.h"
#include "gateway/bedrock/converse_rules.h"
#include "gateway/bedrock/shape.h"

namespace capstan::gateway::bedrock {
namespace {

std::string at(std::string_view path, std::size_t index) { return fmt::format("{}.{}", path, index); }

const Json::Array& items_of(const Json& object, std::string_view key) {
  static const Json::Array kNone;
  const Json* found = object.find(key);
  return found == nullptr || found->is_null() ? kNone : found->items();
}

std::string string_of(const Json& object, std::string_view key) { return object.get_string(key).value_or(""); }

// The one member of a union that is set.
const Json::Member& member_of(const Json& block) {
  return *std::ranges::find_if(block.members(), [](const Json::Member& member) { return !member.second.is_null(); });
}

Json text_part(std::string text) { return Json::object({{"type", "text"}, {"text", std::move(text)}}); }

Result<Json> image_part(const Json& image, const std::string& path) {
  const auto bytes = image.find("source")->get_string("bytes");
  if (!bytes) return fail(Code::kInvalid, "{}.source must hold bytes; objects in S3 cannot be read from here", path);
  const std::string url = fmt::format("data:image/{};base64,{}", string_of(image, "format"), *bytes);
  return Json::object({{"type", "image_url"}, {"image_url", Json::object({{"url", url}})}});
}

std::string joined_texts(const Json::Array& blocks) {
  std::string text;
  for (const Json& block : blocks) text += (text.empty() ? "" : "\n") + string_of(block, "text");
  return text;
}

// Only documents that are text: nothing here reads PDF or Word.
Result<std::string> document_text(const Json& document, const std::string& path) {
  const std::string format = document.get_string("format").value_or("txt");
  constexpr std::array<std::string_view, 4> kTextFormats = {"txt", "md", "csv", "html"};
  const auto& [kind, source] = member_of(*document.find("source"));
  std::string text;
  if (kind == "text") {
    text = source.as_string();
  } else if (kind == "content") {
    text = joined_texts(source.items());
  } else if (kind == "bytes" && std::ranges::find(kTextFormats, format) != kTextFormats.end()) {
    text = *base64_decode(source.as_string());
  } else {
    return fail(Code::kInvalid,
                "{}: documents must be text here (txt, md, csv or html with bytes, source.text or "
                "source.content), not {} in '{}'",
                path, kind, format);
  }
  const std::string context = string_of(document, "context");
  return fmt::format("Document '{}':\n{}{}{}", string_of(document, "name"), context, context.empty() ? "" : "\n", text);
}

std::string search_text(const Json& result) {
  return fmt::format("Search result '{}' ({}):\n{}", string_of(result, "title"), string_of(result, "source"),
                     joined_texts(items_of(result, "content")));
}

Result<std::string> result_text(const Json& result, const std::string& path) {
  const Json::Array& blocks = items_of(result, "content");
  std::string text;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string where = at(path + ".content", i);
    const auto& [kind, value] = member_of(blocks[i]);
    if (!text.empty()) text += '\n';
    if (kind == "text") {
      text += value.as_string();
    } else if (kind == "json") {
      text += value.dump();
    } else if (kind == "searchResult") {
      text += search_text(value);
    } else if (kind == "document") {
      CAPSTAN_TRY(const std::string part, document_text(value, where + ".document"));
      text += part;
    } else {
      return fail(Code::kInvalid,
                  "{}: a tool's result may hold text, json, search results and documents of text, not '{}'",
                  where, kind);
    }
  }
  return result.get_string("status") == "error" ? "error: " + text : text;
}

// What was redacted only its author could read.
std::string reasoning_text(const Json& block) {
  const auto& [kind, value] = member_of(block);
  return kind == "reasoningText" ? string_of(value, "text") : std::string();
}

Json call_json(const Json& use, std::string id, std::string name) {
  const Json* input = use.find("input");
  return Json::object({{"id", std::move(id)},
                       {"type", "function"},
                       {"function", Json::object({{"name", std::move(name)},
                                                  {"arguments", input == nullptr ? "{}" : input->dump()}})}});
}

Result<void> add_assistant(const Json::Array& blocks, const std::string& path, Json& messages) {
  Json message = Json::object({{"role", "assistant"}, {"content", nullptr}});
  std::string content, reasoning;
  Json calls = Json::array();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string where = at(path, i);
    const auto& [kind, value] = member_of(blocks[i]);
    if (kind == "text") {
      content += value.as_string();
    } else if (kind == "reasoningContent") {
      reasoning += reasoning_text(value);
    } else if (kind == "citationsContent") {
      content += joined_texts(items_of(value, "content"));
    } else if (kind == "toolUse") {
      calls.push_back(call_json(value, string_of(value, "toolUseId"), string_of(value, "name")));
    } else if (kind != "cachePoint") {
      return fail(Code::kInvalid,
                  "{}: an assistant's message may hold text, toolUse, reasoningContent and citationsContent, not '{}'", where,
                  kind);
    }
  }
  if (!content.empty() || calls.size() == 0) message["content"] = content;
  if (!reasoning.empty()) message["reasoning"] = reasoning;
  if (calls.size() > 0) message["tool_calls"] = std::move(calls);
  messages.push_back(std::move(message));
  return {};
}

Result<void> add_user(const Json::Array& blocks, const std::string& path, Json& messages) {
  Json parts = Json::array();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string where = at(path, i);
    const auto& [kind, value] = member_of(blocks[i]);
    if (kind == "text") {
      parts.push_back(text_part(value.as_string()));
    } else if (kind == "guardContent" && value.find("text") != nullptr) {
      parts.push_back(text_part(string_of(*value.find("text"), "text")));
    } else if (kind == "searchResult") {
      parts.push_back(text_part(search_text(value)));
    } else if (kind == "image") {
      CAPSTAN_TRY(Json part, image_part(value, where + ".image"));
      parts.push_back(std::move(part));
    } else if (kind == "document") {
      CAPSTAN_TRY(std::string text, document_text(value, where + ".document"));
      parts.push_back(text_part(std::move(text)));
    } else if (kind == "toolResult") {
      CAPSTAN_TRY(std::string text, result_text(value, where + ".toolResult"));
      messages.push_back(Json::object(
          {{"role", "tool"}, {"tool_call_id", string_of(value, "toolUseId")}, {"content", std::move(text)}}));
    } else if (kind != "cachePoint") {
      return fail(Code::kInvalid,
                  "{}: a user's message may hold text, images, documents of text, searchResult and toolResult, not '{}'",
                  where, kind);
    }
  }
  if (parts.size() == 0) return {};
  const bool plain = parts.size() == 1 && parts.items()[0].contains("text");
  messages.push_back(
      Json::object({{"role", "user"}, {"content", plain ? parts.items()[0]["text"] : std::move(parts)}}));
  return {};
}

// Text blocks, of the request's `system` or of a message of that role.
Result<void> add_system(const Json::Array& blocks, const std::string& path, Json& messages) {
  std::string text;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto& [kind, value] = member_of(blocks[i]);
    if (kind == "cachePoint") continue;
    const Json* guarded = kind == "guardContent" ? value.find("text") : nullptr;
    if (kind != "text" && guarded == nullptr)
      return fail(Code::kInvalid, "{} may hold text or a cachePoint, not '{}'", at(path, i), kind);
    text += (text.empty() ? "" : "\n\n") + (guarded == nullptr ? value.as_string() : string_of(*guarded, "text"));
  }
  if (!text.empty()) messages.push_back(Json::object({{"role", "system"}, {"content", std::move(text)}}));
  return {};
}

Result<Json> messages_of(const Json& body) {
  Json messages = Json::array();
  CAPSTAN_CHECK(add_system(items_of(body, "system"), "system", messages));
  const Json::Array& list = items_of(body, "messages");
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string role = string_of(list[i], "role");
    const auto add = role == "assistant" ? add_assistant : role == "user" ? add_user : add_system;
    CAPSTAN_CHECK(add(items_of(list[i], "content"), at("messages", i) + ".content", messages));
  }
  return messages;
}

void set_inference(const Json& body, Json& chat) {
  const Json* config = body.find("inferenceConfig");
  if (config == nullptr || config->is_null()) return;
  for (const auto& [key, value] : config->members()) {
    if (value.is_null()) continue;
    if (key == "maxTokens") chat["max_completion_tokens"] = static_cast<std::int64_t>(value.as_double());
    if (key == "temperature") chat["temperature"] = value;
    if (key == "topP") chat["top_p"] = value;
    if (key == "stopSequences" && value.size() > 0) chat["stop"] = value;
  }
}

Json tool_choice_of(const Json& choice) {
  const auto& [kind, value] = member_of(choice);
  if (kind == "auto") return Json("auto");
  if (kind == "any") return Json("required");
  return Json::object({{"type", "function"}, {"function", Json::object({{"name", string_of(value, "name")}})}});
}

Result<void> set_tools(const Json& body, Json& chat) {
  const Json* config = body.find("toolConfig");
  if (config == nullptr || config->is_null()) return {};
  const Json::Array& tools = items_of(*config, "tools");
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const std::string path = at("toolConfig.tools", i);
    const auto& [kind, spec] = member_of(tools[i]);
    if (kind == "cachePoint") continue;
    if (kind != "toolSpec")
      return fail(Code::kInvalid, "{}: this server has no tools of its own; define it with toolSpec, not '{}'", path, kind);
    Json function = Json::object({{"name", string_of(spec, "name")}});
    if (const auto description = spec.get_string("description")) function["description"] = *description;
    const Json& schema = member_of(*spec.find("inputSchema")).second;
    if (!schema.is_object()) return fail(Code::kInvalid, "{}.toolSpec.inputSchema.json must be an object", path);
    function["parameters"] = schema;
    if (const auto strict = spec.get_bool("strict")) function["strict"] = *strict;
    chat["tools"].push_back(Json::object({{"type", "function"}, {"function", std::move(function)}}));
  }
  const Json* choice = config->find("toolChoice");
  if (choice != nullptr && !choice->is_null()) chat["tool_choice"] = tool_choice_of(*choice);
  return {};
}

Result<void> set_output(const Json& body, Json& chat) {
  const Json* config = body.find("outputConfig");
  if (config == nullptr || config->is_null()) return {};
  if (const auto effort = config->get_string("effort")) chat["reasoning_effort"] = *effort;
  const Json* format = config->find("textFormat");
  if (format == nullptr || format->is_null()) return {};
  const Json& definition = member_of(*format->find("structure")).second;
  auto schema = Json::parse(string_of(definition, "schema"));
  if (!schema || !schema->is_object())
    return fail(Code::kInvalid,
                "outputConfig.textFormat.structure.jsonSchema.schema must be the text of a JSON object{}",
                schema ? "" : ": " + schema.error().message);
  Json described = Json::object({{"name", definition.get_string("name").value_or("output")},
                                 {"strict", true},
                                 {"schema", *std::move(schema)}});
  if (const auto description = definition.get_string("description")) described["description"] = *description;
  chat["response_format"] = Json::object({{"type", "json_schema"}, {"json_schema", std::move(described)}});
  return {};
}

Result<void> merge_additional(const Json& body, Json& chat) {
  const Json* fields = body.find("additionalModelRequestFields");
  if (fields == nullptr || fields->is_null()) return {};
  if (!fields->is_object()) return fail(Code::kInvalid, "additionalModelRequestFields must be an object");
  constexpr std::array<std::string_view, 7> kOwn = {"model", "messages", "stream",      "stream_options",
                                                    "tools", "n",        "service_tier"};
  for (const auto& [key, value] : fields->members()) {
    if (std::ranges::find(kOwn, key) != kOwn.end())
      return fail(Code::kInvalid,
                  "additionalModelRequestFields may not hold '{}': the request has its own field for it",
                  key);
    chat[key] = value;
  }
  return {};
}

// What would change the answer and is not here.
Result<void> refuse_unknown_means(const Json& body) {
  const auto present = [&](std::string_view key) {
    const Json* value = body.find(key);
    return value != nullptr && !value->is_null() && value->size() > 0;
  };
  if (present("guardrailConfig"))
    return fail(Code::kInvalid, "guardrailConfig: there are no guardrails on this server; leave it out");
  if (present("promptVariables"))
    return fail(Code::kInvalid, "promptVariables: this server keeps no prompts; send messages to a model");
  return {};
}

void set_tier(const Json& body, ConverseCall& call) {
  const Json* tier = body.find("serviceTier");
  if (tier == nullptr || tier->is_null()) return;
  call.service_tier = string_of(*tier, "type");
  // Reserved capacity that is used up goes on as default on Bedrock; here reservations are the tenant's
  // limits.
  call.chat["service_tier"] = call.service_tier == "reserved" ? "default" : call.service_tier;
}

}  // namespace

Result<ConverseCall> chat_of_converse(std::string_view model, std::string_view text, bool stream) {
  auto body = Json::parse(text);
  if (!body) return fail(Code::kInvalid, "the body is {}", body.error().message);
  CAPSTAN_CHECK(check_shape(kConverseShape, *body));
  CAPSTAN_CHECK(refuse_unknown_means(*body));
  CAPSTAN_CHECK(check_conversation(*body));
  ConverseCall call;
  call.chat = Json::object({{"model", model}});
  CAPSTAN_TRY(call.chat["messages"], messages_of(*body));
  CAPSTAN_CHECK(merge_additional(*body, call.chat));
  set_inference(*body, call.chat);
  CAPSTAN_CHECK(set_tools(*body, call.chat));
  CAPSTAN_CHECK(set_output(*body, call.chat));
  set_tier(*body, call);
  if (stream) {
    call.chat["stream"] = true;
    call.chat["stream_options"] = Json::object({{"include_usage", true}});
  }
  if (const Json* performance = body->find("performanceConfig")) call.performance_config = *performance;
  for (const Json& path : items_of(*body, "additionalModelResponseFieldPaths")) {
    if (!path.as_string().starts_with('/'))
      return fail(Code::kInvalid, "additionalModelResponseFieldPaths must be JSON pointers, like /choices/0/logprobs");
    call.response_field_paths.push_back(path.as_string());
  }
  return call;
}

}  // namespace capstan::gateway::bedrock

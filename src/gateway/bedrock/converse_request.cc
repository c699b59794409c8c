// How: Converse's messages hold blocks of several kinds, chat's messages parts of one role; so a user's
// message with tool results becomes a tool message a result and one user message for the rest.
#include "gateway/bedrock/converse_request.h"

#include <algorithm>
#include <array>

#include "base/base64.h"

namespace capstan::gateway::bedrock {
namespace {

constexpr std::size_t kResponseFieldPathsMax = 10;

std::string at(std::string_view path, std::size_t index) { return fmt::format("{}.{}", path, index); }

// The member, which must be there and be an array.
Result<const Json::Array*> array_of(const Json& object, std::string_view key, std::string_view path) {
  const Json* found = object.find(key);
  if (found == nullptr || !found->is_array()) return fail(Code::kInvalid, "{}{} must be an array", path, key);
  return &found->items();
}

Result<std::string> string_of(const Json& object, std::string_view key, std::string_view path) {
  auto found = object.get_string(key);
  if (!found) return fail(Code::kInvalid, "{}.{} must be a string", path, key);
  return *std::move(found);
}

// A union has exactly one member; its name.
Result<const Json::Member*> only_member(const Json& block, std::string_view path) {
  if (!block.is_object() || block.size() != 1)
    return fail(Code::kInvalid, "{} must be an object with exactly one member", path);
  return &block.members().front();
}

Json text_part(std::string text) { return Json::object({{"type", "text"}, {"text", std::move(text)}}); }

Result<Json> image_part(const Json& image, const std::string& path) {
  CAPSTAN_TRY(const std::string format, string_of(image, "format", path));
  const Json* source = image.find("source");
  const auto bytes = source == nullptr ? std::nullopt : source->get_string("bytes");
  if (!bytes)
    return fail(Code::kInvalid, "{}.source must hold bytes; objects in S3 cannot be read from here", path);
  return Json::object(
      {{"type", "image_url"},
       {"image_url", Json::object({{"url", fmt::format("data:image/{};base64,{}", format, *bytes)}})}});
}

// Only documents that are text: nothing here reads PDF or Word.
Result<Json> document_part(const Json& document, const std::string& path) {
  CAPSTAN_TRY(const std::string name, string_of(document, "name", path));
  const std::string format = document.get_string("format").value_or("txt");
  constexpr std::array<std::string_view, 4> kTextFormats = {"txt", "md", "csv", "html"};
  const Json* source = document.find("source");
  if (source == nullptr) return fail(Code::kInvalid, "{}.source is missing", path);
  std::string text;
  if (const auto plain = source->get_string("text")) {
    text = *plain;
  } else if (const auto bytes = source->get_string("bytes");
             bytes && std::ranges::find(kTextFormats, format) != kTextFormats.end()) {
    const auto decoded = base64_decode(*bytes);
    if (!decoded) return fail(Code::kInvalid, "{}.source.bytes is not base64", path);
    text = *decoded;
  } else {
    return fail(Code::kInvalid,
                "{}: documents must be text here (txt, md, csv or html with bytes, or source.text), not '{}'",
                path, format);
  }
  return text_part(fmt::format("Document '{}':\n{}", name, text));
}

Result<std::string> result_text(const Json& result, const std::string& path) {
  CAPSTAN_TRY(const Json::Array* blocks, array_of(result, "content", path + "."));
  std::string text;
  for (std::size_t i = 0; i < blocks->size(); ++i) {
    const std::string where = at(path + ".content", i);
    CAPSTAN_TRY(const Json::Member* block, only_member((*blocks)[i], where));
    if (!text.empty()) text += '\n';
    if (block->first == "text" && block->second.is_string()) {
      text += block->second.as_string();
    } else if (block->first == "json") {
      text += block->second.dump();
    } else if (block->first == "document") {
      CAPSTAN_TRY(const Json part, document_part(block->second, where));
      text += part.get_string("text").value_or("");
    } else {
      return fail(Code::kInvalid, "{}: a tool's result may hold text, json and documents of text, not '{}'",
                  where, block->first);
    }
  }
  return result.get_string("status") == "error" ? "error: " + text : text;
}

Result<std::string> reasoning_text(const Json& block, const std::string& path) {
  if (const Json* text = block.find("reasoningText"))
    return string_of(*text, "text", path + ".reasoningText");
  if (block.contains("redactedContent")) return std::string();  // only its author could read it
  return fail(Code::kInvalid, "{} must hold reasoningText or redactedContent", path);
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
    CAPSTAN_TRY(const Json::Member* block, only_member(blocks[i], where));
    const auto& [kind, value] = *block;
    if (kind == "text" && value.is_string()) {
      content += value.as_string();
    } else if (kind == "reasoningContent") {
      CAPSTAN_TRY(const std::string text, reasoning_text(value, where + ".reasoningContent"));
      reasoning += text;
    } else if (kind == "toolUse") {
      CAPSTAN_TRY(std::string id, string_of(value, "toolUseId", where + ".toolUse"));
      CAPSTAN_TRY(std::string name, string_of(value, "name", where + ".toolUse"));
      calls.push_back(call_json(value, std::move(id), std::move(name)));
    } else if (kind != "cachePoint") {
      return fail(Code::kInvalid,
                  "{}: an assistant's message may hold text, toolUse and reasoningContent, not '{}'", where,
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
    CAPSTAN_TRY(const Json::Member* block, only_member(blocks[i], where));
    const auto& [kind, value] = *block;
    if (kind == "text" && value.is_string()) {
      parts.push_back(text_part(value.as_string()));
    } else if (kind == "image") {
      CAPSTAN_TRY(Json part, image_part(value, where + ".image"));
      parts.push_back(std::move(part));
    } else if (kind == "document") {
      CAPSTAN_TRY(Json part, document_part(value, where + ".document"));
      parts.push_back(std::move(part));
    } else if (kind == "toolResult") {
      CAPSTAN_TRY(std::string id, string_of(value, "toolUseId", where + ".toolResult"));
      CAPSTAN_TRY(std::string text, result_text(value, where + ".toolResult"));
      messages.push_back(
          Json::object({{"role", "tool"}, {"tool_call_id", std::move(id)}, {"content", std::move(text)}}));
    } else if (kind != "cachePoint") {
      return fail(Code::kInvalid,
                  "{}: a user's message may hold text, images, documents of text and toolResult, not '{}'",
                  where, kind);
    }
  }
  if (parts.size() == 0) return {};
  const bool plain = parts.size() == 1 && parts.items()[0].contains("text");
  messages.push_back(
      Json::object({{"role", "user"}, {"content", plain ? parts.items()[0]["text"] : std::move(parts)}}));
  return {};
}

Result<void> add_system(const Json& body, Json& messages) {
  const Json* system = body.find("system");
  if (system == nullptr || system->is_null()) return {};
  CAPSTAN_TRY(const Json::Array* blocks, array_of(body, "system", ""));
  std::string text;
  for (std::size_t i = 0; i < blocks->size(); ++i) {
    CAPSTAN_TRY(const Json::Member* block, only_member((*blocks)[i], at("system", i)));
    if (block->first == "cachePoint") continue;
    if (block->first != "text" || !block->second.is_string())
      return fail(Code::kInvalid, "system.{} may hold text or a cachePoint, not '{}'", i, block->first);
    text += (text.empty() ? "" : "\n\n") + block->second.as_string();
  }
  if (!text.empty()) messages.push_back(Json::object({{"role", "system"}, {"content", std::move(text)}}));
  return {};
}

Result<Json> messages_of(const Json& body) {
  Json messages = Json::array();
  CAPSTAN_CHECK(add_system(body, messages));
  CAPSTAN_TRY(const Json::Array* list, array_of(body, "messages", ""));
  if (list->empty()) return fail(Code::kInvalid, "messages must hold at least one message");
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Json& message = (*list)[i];
    const std::string path = at("messages", i);
    CAPSTAN_TRY(const std::string role, string_of(message, "role", path));
    CAPSTAN_TRY(const Json::Array* blocks, array_of(message, "content", path + "."));
    if (role == "assistant") {
      CAPSTAN_CHECK(add_assistant(*blocks, path + ".content", messages));
    } else if (role == "user") {
      CAPSTAN_CHECK(add_user(*blocks, path + ".content", messages));
    } else {
      return fail(Code::kInvalid, "{}.role must be 'user' or 'assistant', not '{}'", path, role);
    }
  }
  return messages;
}

Result<void> set_inference(const Json& body, Json& chat) {
  const Json* config = body.find("inferenceConfig");
  if (config == nullptr || config->is_null()) return {};
  if (!config->is_object()) return fail(Code::kInvalid, "inferenceConfig must be an object");
  for (const auto& [key, value] : config->members()) {
    if (value.is_null()) continue;
    if (key == "maxTokens") {
      if (!value.is_int() || value.as_int() < 1)
        return fail(Code::kInvalid, "inferenceConfig.maxTokens must be a positive integer");
      chat["max_completion_tokens"] = value;
    } else if (key == "temperature" || key == "topP") {
      if (!value.is_number() || value.as_double() < 0 || value.as_double() > (key == "topP" ? 1 : 2))
        return fail(Code::kInvalid, "inferenceConfig.{} must be a number from 0 to {}", key,
                    key == "topP" ? 1 : 2);
      chat[key == "topP" ? "top_p" : "temperature"] = value;
    } else if (key == "stopSequences") {
      if (!value.is_array()) return fail(Code::kInvalid, "inferenceConfig.stopSequences must be an array");
      if (value.size() > 0) chat["stop"] = value;
    }
  }
  return {};
}

Result<Json> tool_choice_of(const Json& choice) {
  CAPSTAN_TRY(const Json::Member* member, only_member(choice, "toolConfig.toolChoice"));
  if (member->first == "auto") return Json("auto");
  if (member->first == "any") return Json("required");
  if (member->first == "tool") {
    CAPSTAN_TRY(std::string name, string_of(member->second, "name", "toolConfig.toolChoice.tool"));
    return Json::object({{"type", "function"}, {"function", Json::object({{"name", std::move(name)}})}});
  }
  return fail(Code::kInvalid, "toolConfig.toolChoice must hold auto, any or tool, not '{}'", member->first);
}

Result<void> set_tools(const Json& body, Json& chat) {
  const Json* config = body.find("toolConfig");
  if (config == nullptr || config->is_null()) return {};
  CAPSTAN_TRY(const Json::Array* tools, array_of(*config, "tools", "toolConfig."));
  for (std::size_t i = 0; i < tools->size(); ++i) {
    const std::string path = at("toolConfig.tools", i);
    CAPSTAN_TRY(const Json::Member* tool, only_member((*tools)[i], path));
    if (tool->first == "cachePoint") continue;
    if (tool->first != "toolSpec")
      return fail(Code::kInvalid, "{} must hold toolSpec or cachePoint, not '{}'", path, tool->first);
    const Json& spec = tool->second;
    CAPSTAN_TRY(std::string name, string_of(spec, "name", path + ".toolSpec"));
    Json function = Json::object({{"name", std::move(name)}});
    if (const auto description = spec.get_string("description")) function["description"] = *description;
    const Json* input = spec.find("inputSchema");
    const Json* schema = input == nullptr ? nullptr : input->find("json");
    if (schema == nullptr || !schema->is_object())
      return fail(Code::kInvalid, "{}.toolSpec.inputSchema.json must be an object", path);
    function["parameters"] = *schema;
    if (const auto strict = spec.get_bool("strict")) function["strict"] = *strict;
    chat["tools"].push_back(Json::object({{"type", "function"}, {"function", std::move(function)}}));
  }
  if (const Json* choice = config->find("toolChoice"); choice != nullptr && !choice->is_null()) {
    CAPSTAN_TRY(chat["tool_choice"], tool_choice_of(*choice));
  }
  return {};
}

Result<void> set_output(const Json& body, Json& chat) {
  const Json* config = body.find("outputConfig");
  if (config == nullptr || config->is_null()) return {};
  if (const auto effort = config->get_string("effort")) chat["reasoning_effort"] = *effort;
  const Json* format = config->find("textFormat");
  if (format == nullptr || format->is_null()) return {};
  if (format->get_string("type") != "json_schema")
    return fail(Code::kInvalid, "outputConfig.textFormat.type must be 'json_schema'");
  const Json* structure = format->find("structure");
  const Json* definition = structure == nullptr ? nullptr : structure->find("jsonSchema");
  if (definition == nullptr)
    return fail(Code::kInvalid, "outputConfig.textFormat.structure.jsonSchema is missing");
  CAPSTAN_TRY(const std::string text,
              string_of(*definition, "schema", "outputConfig.textFormat.structure.jsonSchema"));
  auto schema = Json::parse(text);
  if (!schema || !schema->is_object())
    return fail(Code::kInvalid,
                "outputConfig.textFormat.structure.jsonSchema.schema must be the text of a JSON object{}",
                schema ? "" : ": " + schema.error().message);
  Json described = Json::object({{"name", definition->get_string("name").value_or("output")},
                                 {"strict", true},
                                 {"schema", *std::move(schema)}});
  if (const auto description = definition->get_string("description")) described["description"] = *description;
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

Result<void> set_tier(const Json& body, ConverseCall& call) {
  const Json* tier = body.find("serviceTier");
  if (tier == nullptr || tier->is_null()) return {};
  CAPSTAN_TRY(call.service_tier, string_of(*tier, "type", "serviceTier"));
  constexpr std::array<std::string_view, 4> kTiers = {"default", "flex", "priority", "reserved"};
  if (std::ranges::find(kTiers, call.service_tier) == kTiers.end())
    return fail(Code::kInvalid, "serviceTier.type must be default, flex, priority or reserved, not '{}'",
                call.service_tier);
  // Reserved capacity that is used up goes on as default on Bedrock; here reservations are the tenant's
  // limits.
  call.chat["service_tier"] = call.service_tier == "reserved" ? "default" : call.service_tier;
  return {};
}

}  // namespace

Result<ConverseCall> chat_of_converse(std::string_view model, std::string_view text, bool stream) {
  auto body = Json::parse(text);
  if (!body) return fail(Code::kInvalid, "the body is {}", body.error().message);
  if (!body->is_object())
    return fail(Code::kInvalid, "the body must be a JSON object, not {}", body->type_name());
  CAPSTAN_CHECK(refuse_unknown_means(*body));
  ConverseCall call;
  call.chat = Json::object({{"model", model}});
  CAPSTAN_TRY(call.chat["messages"], messages_of(*body));
  CAPSTAN_CHECK(merge_additional(*body, call.chat));
  CAPSTAN_CHECK(set_inference(*body, call.chat));
  CAPSTAN_CHECK(set_tools(*body, call.chat));
  CAPSTAN_CHECK(set_output(*body, call.chat));
  CAPSTAN_CHECK(set_tier(*body, call));
  if (stream) {
    call.chat["stream"] = true;
    call.chat["stream_options"] = Json::object({{"include_usage", true}});
  }
  if (const Json* performance = body->find("performanceConfig")) call.performance_config = *performance;
  if (const Json* paths = body->find("additionalModelResponseFieldPaths");
      paths != nullptr && paths->is_array()) {
    if (paths->size() > kResponseFieldPathsMax)
      return fail(Code::kInvalid, "additionalModelResponseFieldPaths holds at most {} paths",
                  kResponseFieldPathsMax);
    for (const Json& path : paths->items()) {
      if (!path.is_string() || !path.as_string().starts_with('/'))
        return fail(Code::kInvalid,
                    "additionalModelResponseFieldPaths must be JSON pointers, like /choices/0/logprobs");
      call.response_field_paths.push_back(path.as_string());
    }
  }
  return call;
}

}  // namespace capstan::gateway::bedrock

#include "gateway/openai/responses_request.h"

#include <algorithm>
#include <cctype>

#include "base/text_member.h"
#include "gateway/openai/responses_checks.h"

namespace capstan::gateway::openai {

bool is_container_id(std::string_view text) {
  constexpr std::size_t kBytesMax = 64;
  const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; };
  return text.starts_with("cntr_") && text.size() <= kBytesMax && std::ranges::all_of(text, plain);
}

bool asks_for_code(std::string_view body) {
  if (body.find("code_interpreter") == std::string_view::npos) return false;
  const auto json = Json::parse(body);
  const Json* tools = json ? json->find("tools") : nullptr;
  return tools != nullptr && tools->is_array() && std::ranges::any_of(tools->items(), [](const Json& tool) {
    return tool.get_string("type") == "code_interpreter";
  });
}

namespace {

using Status = std::expected<void, OpenAiError>;

// "conv_…" or {"id": "conv_…"}
Status read_conversation(const Json& body, ResponsesCall& call) {
  const Json* conversation = given(body, "conversation");
  if (conversation == nullptr) return {};
  if (!conversation->is_string() && !conversation->is_object())
    return wrong_type("conversation", "one of a string or object", *conversation);
  const auto id = conversation->is_string() ? conversation->as_string() : conversation->get_string("id");
  if (!id) return missing("conversation.id");
  if (!call.previous_response_id.empty())
    return wrong("conversation", "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Ensure you are only "
                                 "providing one of them.",
                 "mutually_exclusive_parameters");
  call.conversation = *id;
  return {};
}

// What would need a server of another kind.
Status refuse_hosted(const Json& body) {
  if (given(body, "prompt") != nullptr)
    return wrong("prompt", "'prompt': this server keeps no prompts; give instructions and input",
                 "unsupported_parameter");
  return {};
}

// A custom tool's input is a text, of which a format may be given: {"type": "grammar", "syntax": "lark" | "regex",
// "definition"}. An expression binds the input, of a grammar the model is told.
Status read_input_format(const Json& tool, const std::string& path, Json& function) {
  function["parameters"] = text_member_schema(kInputArgument);
  function["strict"] = true;
  const Json* format = given(tool, "format");
  if (format == nullptr || format->get_string("type") == "text") return {};
  const auto syntax = format->get_string("syntax"), definition = format->get_string("definition");
  if (format->get_string("type") != "grammar")
    return wrong(path + ".type", fmt::format("'{}.type' must be text or grammar", path));
  if (syntax != "lark" && syntax != "regex")
    return wrong(path + ".syntax", fmt::format("'{}.syntax' must be lark or regex", path));
  if (!definition) return missing(path + ".definition");
  if (syntax == "regex") {
    function["parameters"] = text_member_schema(kInputArgument, *definition);
  } else {
    function["description"] = with_lark_grammar(function.get_string("description").value_or(""), *definition);
  }
  return {};
}

std::expected<Json, OpenAiError> function_of(const Json& tool, const std::string& path, bool custom) {
  const auto name = tool.get_string("name");
  if (!name) return missing(path + ".name");
  if (!is_plain_name(*name))
    return wrong(path + ".name", fmt::format("Invalid '{}.name': '{}' must match ^[a-zA-Z0-9_-]{{1,64}}$.", path, *name));
  Json function = Json::object({{"name", *name}});
  if (const auto description = tool.get_string("description")) function["description"] = *description;
  if (custom) {
    if (auto read = read_input_format(tool, path + ".format", function); !read) return std::unexpected(read.error());
    return Json::object({{"type", "function"}, {"function", std::move(function)}});
  }
  if (const Json* parameters = given(tool, "parameters")) function["parameters"] = *parameters;
  if (const auto strict = tool.get_bool("strict")) function["strict"] = *strict;
  return Json::object({{"type", "function"}, {"function", std::move(function)}});
}

// Ids of uploaded files that a container of type auto is given.
Status read_container_files(const Json& container, const std::string& path, ResponsesCall& call) {
  const Json* ids = given(container, "file_ids");
  if (ids == nullptr) return {};
  if (!ids->is_array()) return wrong_type(path, "an array", *ids);
  if (ids->size() > kContainerFilesMax) return too_many(path, kContainerFilesMax, ids->size());
  for (std::size_t i = 0; i < ids->size(); ++i) {
    const Json& id = ids->items()[i];
    if (!id.is_string()) return wrong_type(fmt::format("{}[{}]", path, i), "a string", id);
    call.container_files.push_back(id.as_string());
  }
  return {};
}

// {"type": "code_interpreter", "container": "cntr_…" | {"type": "auto", "file_ids": ["file-…"]}}
Status read_code_interpreter(const Json& tool, const std::string& path, ResponsesCall& call) {
  if (call.code) return wrong(path, "'tools' may hold one code_interpreter", "duplicate_tool");
  const Json* container = given(tool, "container");
  if (container == nullptr)
    return wrong(path + ".container", fmt::format("'{}.container' is missing; give {{\"type\": \"auto\"}}", path),
                 "missing_required_parameter");
  if (container->is_string()) {
    call.container = container->as_string();
    if (!is_container_id(call.container))
      return wrong(path + ".container", fmt::format("'{}.container' must be the id of a container (cntr_…) or "
                                                    "{{\"type\": \"auto\"}}, not '{}'", path, call.container));
  } else if (container->get_string("type") != "auto") {
    return wrong(path + ".container.type", fmt::format("'{}.container' must be an id or of type auto", path));
  }
  for (const std::string_view key : {"memory_limit", "network_policy"}) {
    const Json* wish = given(*container, key);
    if (wish == nullptr || wish->get_string("type") == "disabled") continue;
    return wrong(fmt::format("{}.container.{}", path, key),
                 fmt::format("'{}.container.{}' is not served: containers have no network, and all the same memory; leave it "
                             "out",
                             path, key),
                 "unsupported_parameter");
  }
  if (auto read = read_container_files(*container, path + ".container.file_ids", call); !read) return read;
  call.code = true;
  Json function = Json::object({{"name", kCodeFunction},
                                {"description",
                                 "Runs Python code and returns what it prints and the value of its last expression. "
                                 "Variables stay for the next call. There is no network."}});
  function["parameters"] = text_member_schema(kCodeArgument);
  call.settings["tools"].push_back(Json::object({{"type", "function"}, {"function", std::move(function)}}));
  return {};
}

Status read_tools(const Json& body, ResponsesCall& call) {
  const Json* tools = given(body, "tools");
  if (tools == nullptr) return {};
  if (tools->size() > kResponsesToolsMax)
    return wrong("tools", fmt::format("'tools' may hold {} tools, not {}", kResponsesToolsMax, tools->size()),
                 "array_above_max_length");
  bool taken = false;
  for (std::size_t i = 0; i < tools->size(); ++i) {
    const Json& tool = tools->items()[i];
    const std::string type = tool.get_string("type").value_or("");
    const std::string path = fmt::format("tools[{}]", i);
    if (!tool.is_object()) return wrong_type(path, "an object", tool);
    if (type.empty()) return missing(path + ".type");
    if (type == "code_interpreter") {
      if (auto read = read_code_interpreter(tool, path, call); !read) return read;
      continue;
    }
    if (type != "function" && type != "custom") continue;
    auto function = function_of(tool, path, type == "custom");
    if (!function) return std::unexpected(function.error());
    taken = taken || tool.get_string("name") == kCodeFunction;
    if (type == "custom") call.custom_tools.push_back(*tool.get_string("name"));
    call.settings["tools"].push_back(*std::move(function));
  }
  if (call.code && taken)
    return wrong("tools", fmt::format("a function named '{}' and code_interpreter cannot be told apart by the model; "
                                      "give the function another name",
                                      kCodeFunction));
  return {};
}

Json named_choice(const std::string& name) {
  return Json::object({{"type", "function"}, {"function", Json::object({{"name", name}})}});
}

std::unexpected<OpenAiError> no_such_tool(std::string_view name) {
  return wrong("tool_choice", fmt::format("Tool choice 'function' with name '{}' not found in 'tools' parameter.", name));
}

bool has_tool(const ResponsesCall& call, std::string_view name) {
  const Json* tools = call.settings.find("tools");
  return tools != nullptr && std::ranges::any_of(tools->items(), [&](const Json& tool) {
    return tool.find("function")->get_string("name") == name;
  });
}

// {"type": "allowed_tools", "mode", "tools"}: the others are not offered.
Status allow_only(const Json& choice, ResponsesCall& call) {
  const Json* allowed = choice.find("tools");
  Json* tools = call.settings.find("tools");
  if (allowed == nullptr || !allowed->is_array()) return missing("tool_choice.tools");
  for (const Json& one : allowed->items()) {
    const auto name = one.get_string("name");
    const auto type = one.get_string("type");
    if (name && (type == "function" || type == "custom") && !has_tool(call, *name)) return no_such_tool(*name);
  }
  std::erase_if(tools->items(), [&](const Json& tool) {
    const auto name = tool.find("function")->get_string("name");
    return std::ranges::none_of(allowed->items(), [&](const Json& one) {
      const bool code = call.code && one.get_string("type") == "code_interpreter";
      return code ? name == kCodeFunction : one.get_string("name") == name;
    });
  });
  if (tools->size() == 0) call.settings.erase("tools");
  return {};
}

Status read_tool_choice(const Json& body, ResponsesCall& call) {
  const Json* choice = given(body, "tool_choice");
  if (choice == nullptr) return {};
  if (choice->is_string()) {
    const std::string& mode = choice->as_string();
    if (mode != "auto" && mode != "none" && mode != "required")
      return wrong("tool_choice",
                   fmt::format("'tool_choice' must be auto, none, required or an object, not '{}'", mode));
    const Json* tools = given(body, "tools");
    if (mode == "required" && (tools == nullptr || tools->size() == 0))
      return wrong("tool_choice", "Tool choice 'required' must be specified with 'tools' parameter.");
    if (call.settings.contains("tools")) call.settings["tool_choice"] = mode;
    return {};
  }
  if (!choice->is_object()) return wrong_type("tool_choice", "one of a string or object", *choice);
  if (!call.settings.contains("tools")) return {};
  const std::string type = choice->get_string("type").value_or("");
  if (type == "function" || type == "custom") {
    const auto name = choice->get_string("name");
    if (!name) return missing("tool_choice.name");
    if (!has_tool(call, *name)) return no_such_tool(*name);
    call.settings["tool_choice"] = named_choice(*name);
  } else if (type == "code_interpreter" && call.code) {
    call.settings["tool_choice"] = named_choice(std::string(kCodeFunction));
  } else if (type == "allowed_tools") {
    if (auto allowed = allow_only(*choice, call); !allowed) return allowed;
    if (call.settings.contains("tools"))
      call.settings["tool_choice"] = choice->get_string("mode").value_or("auto");
  }
  return {};
}

Status read_text(const Json& body, ResponsesCall& call) {
  const Json* text = given(body, "text");
  if (text == nullptr) return {};
  if (const auto verbosity = text->get_string("verbosity")) call.settings["verbosity"] = *verbosity;
  const Json* format = given(*text, "format");
  if (format == nullptr) return {};
  const std::string type = format->get_string("type").value_or("");
  if (type == "json_object") {
    call.settings["response_format"] = Json::object({{"type", "json_object"}});
  } else if (type == "json_schema") {
    Json schema = Json::object();
    for (const std::string_view key : {"name", "description", "schema", "strict"}) {
      if (const Json* value = given(*format, key)) schema[key] = *value;
    }
    for (const std::string_view key : {"name", "schema"}) {
      if (!schema.contains(key)) return missing(fmt::format("text.format.{}", key));
    }
    if (!schema["name"].is_string() || !is_plain_name(schema["name"].as_string()))
      return wrong("text.format.name", "Invalid 'text.format.name': it must match ^[a-zA-Z0-9_-]{1,64}$.");
    call.settings["response_format"] =
        Json::object({{"type", "json_schema"}, {"json_schema", std::move(schema)}});
  } else if (type != "text") {
    return wrong("text.format.type",
                 fmt::format("'text.format.type' must be text, json_object or json_schema, not '{}'", type));
  }
  return {};
}

void read_include(const Json& body, ResponsesCall& call) {
  const Json* include = given(body, "include");
  for (const Json& item : include == nullptr ? Json::Array{} : include->items()) {
    if (item == Json("reasoning.encrypted_content")) call.encrypted_reasoning = true;
    if (item == Json("message.output_text.logprobs")) call.logprobs = true;
    if (item == Json("code_interpreter_call.outputs")) call.code_outputs = true;
  }
  if (call.logprobs || given(body, "top_logprobs") != nullptr) {
    call.settings["logprobs"] = true;
    call.logprobs = true;
    if (const Json* top = given(body, "top_logprobs"))
      call.settings["top_logprobs"] = static_cast<std::int64_t>(top->as_double());
  }
}

Status read_settings(const Json& body, ResponsesCall& call) {
  if (auto read = read_tools(body, call); !read) return read;
  if (auto read = read_tool_choice(body, call); !read) return read;
  if (auto read = read_text(body, call); !read) return read;
  for (const std::string_view key :
       {"temperature", "top_p", "parallel_tool_calls", "service_tier", "prompt_cache_key",
        "safety_identifier", "user", "prompt_cache_retention"}) {
    if (const Json* value = given(body, key)) call.settings[key] = *value;
  }
  if (!call.settings.contains("tools")) call.settings.erase("parallel_tool_calls");
  if (const Json* most = given(body, "max_output_tokens"))
    call.settings["max_completion_tokens"] = static_cast<std::int64_t>(most->as_double());
  if (const Json* most = given(body, "max_tool_calls")) call.tool_calls_max = static_cast<std::int64_t>(most->as_double());
  if (const Json* reasoning = given(body, "reasoning")) {
    if (const auto effort = reasoning->get_string("effort")) call.settings["reasoning_effort"] = *effort;
  }
  read_include(body, call);
  return {};
}

// The request's fields as every response repeats them, with OpenAI's defaults.
Json echo_of(const Json& body) {
  const auto or_default = [&](std::string_view key, Json otherwise) {
    const Json* value = given(body, key);
    return value == nullptr ? std::move(otherwise) : *value;
  };
  Json reasoning = Json::object({{"effort", nullptr}, {"summary", nullptr}});
  if (const Json* asked = given(body, "reasoning")) {
    for (const auto& [key, value] : asked->members()) reasoning[key] = value;
  }
  Json text = or_default("text", Json::object());
  if (given(text, "format") == nullptr) text["format"] = Json::object({{"type", "text"}});
  Json echo = Json::object();
  echo["instructions"] = or_default("instructions", nullptr);
  for (const std::string_view key : {"max_output_tokens", "max_tool_calls"}) {
    const Json* most = given(body, key);
    echo[key] = most == nullptr ? Json() : Json(static_cast<std::int64_t>(most->as_double()));
  }
  echo["parallel_tool_calls"] = or_default("parallel_tool_calls", true);
  echo["previous_response_id"] = or_default("previous_response_id", nullptr);
  echo["prompt_cache_key"] = or_default("prompt_cache_key", nullptr);
  echo["reasoning"] = std::move(reasoning);
  echo["safety_identifier"] = or_default("safety_identifier", nullptr);
  echo["service_tier"] = or_default("service_tier", "auto");
  echo["store"] = or_default("store", true);
  echo["temperature"] = or_default("temperature", 1.0);
  echo["text"] = std::move(text);
  echo["tool_choice"] = or_default("tool_choice", "auto");
  echo["tools"] = or_default("tools", Json::array());
  echo["top_logprobs"] = or_default("top_logprobs", 0);
  echo["top_p"] = or_default("top_p", 1.0);
  echo["truncation"] = or_default("truncation", "disabled");
  if (const Json* user = given(body, "user")) echo["user"] = *user;
  echo["metadata"] = or_default("metadata", Json::object());
  return echo;
}

}  // namespace

std::expected<ResponsesCall, OpenAiError> parse_responses_request(std::string_view text) {
  const auto body = Json::parse(text);
  if (!body) return wrong("", "the body is " + body.error().message, "");
  if (!body->is_object())
    return wrong("", fmt::format("the body must be a JSON object, not {}", body->type_name()), "");
  for (const auto check : {check_responses_fields, refuse_hosted}) {
    if (auto checked = check(*body); !checked) return std::unexpected(checked.error());
  }
  ResponsesCall call;
  call.model = body->get_string("model").value_or("");
  if (call.model.empty())
    return wrong("model", "'model' is missing; name one of GET /v1/models", "missing_required_parameter");
  call.instructions = body->get_string("instructions").value_or("");
  call.previous_response_id = body->get_string("previous_response_id").value_or("");
  if (auto read = read_conversation(*body, call); !read) return std::unexpected(read.error());
  call.stream = body->get_bool("stream").value_or(false);
  call.store = body->get_bool("store").value_or(true);
  call.background = body->get_bool("background").value_or(false);
  if (call.background && !call.store)
    return wrong("background", "'background' needs 'store': true, since the answer is fetched later");
  call.may_truncate = body->get_string("truncation") == "auto";
  const Json* input = given(*body, "input");
  if (input == nullptr) return wrong("input", "'input' is missing", "missing_required_parameter");
  auto items = input_items(*input);
  if (!items) return std::unexpected(items.error());
  call.input = *std::move(items);
  call.settings = Json::object();
  if (auto read = read_settings(*body, call); !read) return std::unexpected(read.error());
  call.echo = echo_of(*body);
  if (!call.conversation.empty()) call.echo["conversation"] = Json::object({{"id", call.conversation}});
  return call;
}

std::expected<Json, OpenAiError> chat_of_responses(const ResponsesCall& call, const Json::Array& previous,
                                                   const ItemSources& sources) {
  Json messages = Json::array();
  if (!call.instructions.empty())
    messages.push_back(Json::object({{"role", "developer"}, {"content", call.instructions}}));
  Json::Array items = previous;
  items.insert(items.end(), call.input.begin(), call.input.end());
  if (auto added = add_items(items, sources, messages); !added) return std::unexpected(added.error());
  if (messages.size() == 0) return wrong("input", "'input' holds no message that the model could read");
  Json chat = Json::object({{"model", call.model}, {"messages", std::move(messages)}});
  for (const auto& [key, value] : call.settings.members()) chat[key] = value;
  if (call.streams()) {
    chat["stream"] = true;
    chat["stream_options"] = Json::object({{"include_usage", true}});
  }
  return chat;
}

}  // namespace capstan::gateway::openai

// Straight-line reading with FieldReader; one function per part of the body.
#include "engine/server/openai_request.h"

#include <algorithm>

#include "base/text.h"
#include "base/text_member.h"
#include "engine/server/chat_messages.h"
#include "engine/server/field_reader.h"

namespace capstan::engine {
namespace {

// {"name", "description", "parameters", "strict"}
ChatTool read_function(const Json& function, const std::string& path, const ChatRequest& request,
                       std::optional<ApiError>& error) {
  FieldReader fields(function, path, error);
  ChatTool read{.name = fields.required_string("name"),
                .description = fields.string("description").value_or(""),
                .parameters = {},
                .strict = fields.boolean("strict").value_or(false)};
  if (const Json* parameters = fields.object("parameters")) read.parameters = *parameters;
  fields.require_plain_name("name", read.name);
  if (std::ranges::find(request.tools, read.name, &ChatTool::name) != request.tools.end())
    fields.fail_with(ApiError::bad_value(fields.path("name"), fmt::format("The tool '{}' is given twice.", read.name)));
  return read;
}

// {"type": "text"} or {"type": "grammar", "grammar": {"syntax", "definition"}}. An expression binds the input; of a grammar the
// model is told.
void make_custom(const Json& custom, const std::string& path, ChatTool& tool, std::optional<ApiError>& error) {
  tool.custom = tool.strict = true;
  tool.parameters = text_member_schema(kInputArgument);
  FieldReader fields(custom, path, error);
  const Json* format = fields.object("format");
  if (format == nullptr) return;
  FieldReader form(*format, fields.path("format"), error);
  if (form.choice("type", {"text", "grammar"}) != "grammar") return;
  const Json* grammar = form.object("grammar");
  if (grammar == nullptr) return form.fail_with(ApiError::missing(form.path("grammar")));
  FieldReader rules(*grammar, form.path("grammar"), error);
  const auto syntax = rules.choice("syntax", {"lark", "regex"});
  const std::string definition = rules.required_string("definition");
  if (!syntax) return rules.fail_with(ApiError::missing(rules.path("syntax")));
  if (syntax == "regex") {
    tool.parameters = text_member_schema(kInputArgument, definition);
  } else {
    tool.description = with_lark_grammar(tool.description, definition);
  }
}

void read_tools(FieldReader& body, ChatRequest& request, std::optional<ApiError>& error) {
  const Json* list = body.array("tools", kToolsMax);
  for (std::size_t i = 0; list != nullptr && i < list->size() && !error; ++i) {
    const std::string path = at("tools", i);
    const Json& item = list->items()[i];
    if (!item.is_object()) {
      body.fail_with(ApiError::wrong_type(path, "an object", item));
      return;
    }
    FieldReader tool(item, path, error);
    if (tool.find("type") == nullptr) tool.fail_with(ApiError::missing(path + ".type"));
    const std::string type = tool.choice("type", {"function", "custom"}).value_or("");
    if (type.empty()) return;
    const Json* fields = tool.object(type);
    if (fields == nullptr) {
      tool.fail_with(ApiError::missing(path + "." + type));
      return;
    }
    request.tools.push_back(read_function(*fields, path + "." + type, request, error));
    if (type == "custom") make_custom(*fields, path + ".custom", request.tools.back(), error);
  }
}

// The tools that the list does not name are as if they had not been given.
void read_allowed_tools(FieldReader& choice, ChatRequest& request, std::optional<ApiError>& error) {
  const Json* allowed = choice.object("allowed_tools");
  if (allowed == nullptr) {
    choice.fail_with(ApiError::missing("tool_choice.allowed_tools"));
    return;
  }
  FieldReader fields(*allowed, "tool_choice.allowed_tools", error);
  if (fields.choice("mode", {"auto", "required"}) == "required") request.tool_choice = ToolChoice::kRequired;
  const Json* list = fields.array("tools", kToolsMax);
  if (list == nullptr) {
    fields.fail_with(ApiError::missing("tool_choice.allowed_tools.tools"));
    return;
  }
  std::vector<ChatTool> kept;
  for (std::size_t i = 0; i < list->size() && !error; ++i) {
    const Json& item = list->items()[i];
    const Json* function = item.find(item.get_string("type") == "custom" ? "custom" : "function");
    const std::string name = function == nullptr ? "" : function->get_string("name").value_or("");
    const auto known = std::ranges::find(request.tools, name, &ChatTool::name);
    if (known != request.tools.end()) {
      kept.push_back(*known);
    } else {
      fields.fail_with(ApiError::bad_value(
          at("tool_choice.allowed_tools.tools", i),
          fmt::format("Tool choice 'function' with name '{}' not found in 'tools' parameter.", name)));
    }
  }
  request.tools = std::move(kept);
}

// `functions` and `function_call`, as they were before `tools`.
void read_functions(FieldReader& body, ChatRequest& request, std::optional<ApiError>& error) {
  const Json* list = body.array("functions", kToolsMax);
  if (list == nullptr) {
    if (body.find("function_call") != nullptr)
      body.fail_with(ApiError::bad_value("function_call", "'function_call' is only allowed when 'functions' are specified."));
    return;
  }
  if (!request.tools.empty()) body.fail_with(ApiError::bad_value("functions", "'functions' and 'tools' exclude each other."));
  if (list->size() == 0) body.fail_with(ApiError::empty_array("functions"));
  request.legacy_functions = true;
  for (std::size_t i = 0; i < list->size() && !error; ++i) {
    const Json& item = list->items()[i];
    if (!item.is_object()) return body.fail_with(ApiError::wrong_type(at("functions", i), "an object", item));
    request.tools.push_back(read_function(item, at("functions", i), request, error));
  }
  const Json* call = body.find("function_call");
  if (call == nullptr || error) return;
  if (!call->is_object()) {
    if (body.choice("function_call", {"none", "auto"}) == "none") request.tools.clear();
    return;
  }
  request.tool_choice = ToolChoice::kNamed;
  request.tool_named = FieldReader(*call, "function_call", error).required_string("name");
  if (std::ranges::find(request.tools, request.tool_named, &ChatTool::name) == request.tools.end())
    body.fail_with(ApiError::bad_value("function_call.name",
                                       fmt::format("The function '{}' is not among the 'functions'.", request.tool_named)));
}

void read_tool_choice(FieldReader& body, ChatRequest& request, std::optional<ApiError>& error) {
  const Json* choice = body.find("tool_choice");
  if (choice == nullptr) return;
  if (choice->is_object()) {
    FieldReader fields(*choice, "tool_choice", error);
    const std::string type = fields.choice("type", {"function", "custom", "allowed_tools"}).value_or("function");
    if (type == "allowed_tools") {
      read_allowed_tools(fields, request, error);
      return;
    }
    const Json* named = fields.object(type);
    if (named == nullptr) {
      fields.fail_with(ApiError::missing("tool_choice." + type));
      return;
    }
    request.tool_choice = ToolChoice::kNamed;
    request.tool_named = FieldReader(*named, "tool_choice." + type, error).required_string("name");
    const auto tool = std::ranges::find(request.tools, request.tool_named, &ChatTool::name);
    if (!error && (tool == request.tools.end() || tool->custom != (type == "custom"))) {
      body.fail_with(ApiError::bad_value(
          "tool_choice", fmt::format("Tool choice '{}' with name '{}' not found in 'tools' parameter.", type,
                                     request.tool_named)));
    }
    return;
  }
  const auto value = body.choice("tool_choice", {"none", "auto", "required"});
  if (request.tools.empty() && value && value != "none") {
    body.fail_with(
        ApiError::bad_value("tool_choice", "'tool_choice' is only allowed when 'tools' are specified."));
  }
  if (value == "required") request.tool_choice = ToolChoice::kRequired;
  if (value == "none") request.tools.clear();
}

void read_stop(FieldReader& body, SamplingRequest& request) {
  const Json* stop = body.find("stop");
  if (stop == nullptr) return;
  if (stop->is_string()) {
    request.stop.push_back(stop->as_string());
  } else if (stop->is_array()) {
    if (body.array("stop", kStopsMax) == nullptr) return;
    for (std::size_t i = 0; i < stop->size(); ++i) {
      const Json& item = stop->items()[i];
      if (!item.is_string()) {
        body.fail_with(ApiError::wrong_type(at("stop", i), "a string", item));
        return;
      }
      request.stop.push_back(item.as_string());
    }
  } else {
    body.fail_with(ApiError::wrong_type("stop", "one of a string or array of strings", *stop));
  }
  for (const std::string& text : request.stop) {
    if (text.empty() || text.size() > kStopBytesMax) {
      body.fail_with(ApiError::bad_value(
          "stop", fmt::format("Invalid 'stop': a stop sequence has 1 to {} bytes, but one has {}.",
                              kStopBytesMax, text.size())));
    }
  }
}

// {"token id": -100..100}
void read_logit_bias(FieldReader& body, SamplingRequest& request) {
  const Json* bias = body.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > kLogitBiasEntriesMax)
    body.fail_with(ApiError::bad_value("logit_bias", fmt::format("Invalid 'logit_bias': at most {} tokens, but got {}.",
                                                                 kLogitBiasEntriesMax, bias->size())));
  for (const auto& [key, value] : bias->members()) {
    const auto token = parse_int(key);
    if (!token || *token < 0 || *token > INT32_MAX) {
      body.fail_with(ApiError::bad_value(
          "logit_bias", fmt::format("Invalid key in 'logit_bias': {}. You should only be submitting non-negative integers.",
                                    key)));
    } else if (!value.is_number() || value.as_double() < -100 || value.as_double() > 100) {
      body.fail_with(ApiError::bad_value(
          "logit_bias", fmt::format("Invalid value in 'logit_bias' for {}: expected a number from -100 to 100.", key)));
    } else {
      request.logit_bias.emplace_back(*token, value.as_double());
    }
  }
}

// `tokens_min`: of max_tokens.
void read_sampling(FieldReader& body, std::optional<ApiError>& error, SamplingRequest& request, int tokens_min) {
  request.model = body.required_string("model");
  request.temperature = body.number("temperature", 0, 2);
  request.top_p = body.number("top_p", 0, 1);
  request.seed = body.integer("seed", INT64_MIN, INT64_MAX);
  request.choices = static_cast<int>(body.integer("n", 1, kChoicesMax).value_or(1));
  request.stream = body.boolean("stream").value_or(false);
  request.tokens_max = body.integer("max_tokens", tokens_min, INT32_MAX);
  read_stop(body, request);
  request.top_k = static_cast<int>(std::max<std::int64_t>(body.integer("top_k", -1, INT32_MAX).value_or(0), 0));
  request.min_p = body.number("min_p", 0, 1).value_or(0);
  request.presence_penalty = body.number("presence_penalty", -2, 2).value_or(0);
  request.frequency_penalty = body.number("frequency_penalty", -2, 2).value_or(0);
  read_logit_bias(body, request);
  request.service_tier =
      body.choice("service_tier", {"auto", "default", "flex", "scale", "priority", "fast"}).value_or("");
  body.string("user");
  const Json* options = body.object("stream_options");
  if (options == nullptr) return;
  if (!request.stream) {
    body.fail_with(ApiError::bad_value(
        "stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled."));
    return;
  }
  request.include_usage =
      FieldReader(*options, "stream_options", error).boolean("include_usage").value_or(false);
}

// What does not change the answer must be well-formed all the same.
void check_unused(FieldReader& body, std::optional<ApiError>& error) {
  for (const std::string_view key : {"store", "parallel_tool_calls"}) body.boolean(key);
  for (const std::string_view key : {"safety_identifier", "prompt_cache_key"}) body.string(key);
  body.choice("verbosity", {"low", "medium", "high"});
  const Json* metadata = body.object("metadata");
  if (metadata == nullptr) return;
  if (metadata->size() > kMetadataMax) {
    ApiError refused =
        ApiError::bad_value("metadata", fmt::format("Invalid 'metadata': too many properties. Expected an "
                                                    "object with at most {} properties, but got an "
                                                    "object with {} properties instead.",
                                                    kMetadataMax, metadata->size()));
    refused.code = "object_above_max_properties";
    body.fail_with(std::move(refused));
  }
  FieldReader pairs(*metadata, "metadata", error);
  for (const auto& [key, value] : metadata->members()) {
    if (const auto text = pairs.string(key); text && (key.size() > 64 || text->size() > 512))
      pairs.fail_with(ApiError::bad_value(pairs.path(key), "Invalid 'metadata': keys have at most 64 bytes, values 512."));
  }
}

void refuse_other_outputs(FieldReader& body) {
  if (const Json* modalities = body.array("modalities", 8)) {
    for (const Json& item : modalities->items()) {
      if (item != Json("text"))
        body.fail_with(ApiError::unsupported("modalities", "This model answers in text only."));
    }
  }
  if (body.find("web_search_options") != nullptr)
    body.fail_with(ApiError::unsupported(
        "web_search_options", "'web_search_options' is not supported: this model does not search."));
}

// A text or token ids, or a list of these.
void read_prompts(FieldReader& body, CompletionRequest& request) {
  const Json* prompt = body.find("prompt");
  if (prompt == nullptr) {
    body.fail_with(ApiError::missing("prompt"));
    return;
  }
  const auto is_tokens = [](const Json& json) {
    return json.is_array() && json.size() > 0 && std::ranges::all_of(json.items(), &Json::is_int);
  };
  const bool one = prompt->is_string() || is_tokens(*prompt);
  if (!one && !prompt->is_array()) {
    body.fail_with(ApiError::wrong_type(
        "prompt", "one of a string, array of strings, array of integers, or array of integer arrays",
        *prompt));
    return;
  }
  const std::size_t count = one ? 1 : prompt->size();
  if (count * static_cast<std::size_t>(std::max(request.choices, request.best_of)) > static_cast<std::size_t>(kChoicesMax)) {
    body.fail_with(ApiError::bad_value(
        "prompt", fmt::format("Invalid 'prompt': {} prompts with {} answers each are more than {} answers.", count,
                              std::max(request.choices, request.best_of), kChoicesMax)));
    return;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const Json& item = one ? *prompt : prompt->items()[i];
    const std::string path = one ? "prompt" : at("prompt", i);
    CompletionRequest::Prompt read;
    if (item.is_string()) {
      read.text = item.as_string();
    } else if (is_tokens(item)) {
      for (const Json& token : item.items()) read.tokens.push_back(token.as_int());
    } else if (!item.is_array() || item.size() > 0) {
      body.fail_with(ApiError::wrong_type(path, "one of a string or array of integers", item));
      return;
    }
    if (read.text.empty() && read.tokens.empty()) {
      body.fail_with(ApiError::bad_value(
          path, fmt::format("Invalid '{}': empty. A completion continues at least one token.", path)));
      return;
    }
    request.prompts.push_back(std::move(read));
  }
  if (request.prompts.empty())
    body.fail_with(ApiError::bad_value("prompt", "Invalid 'prompt': empty array."));
}

std::expected<Json, ApiError> parse_object(std::string_view text) {
  auto body = Json::parse(text);
  if (!body || !body->is_object()) {
    return std::unexpected(
        ApiError{.message = fmt::format("We could not parse the JSON body of your request: {}.",
                                        body ? "expected an object" : body.error().message)});
  }
  return *std::move(body);
}

}  // namespace

std::expected<ChatRequest, ApiError> parse_chat_request(std::string_view text) {
  const auto json = parse_object(text);
  if (!json) return std::unexpected(json.error());
  std::optional<ApiError> error;
  ChatRequest request;
  FieldReader body(*json, "", error);
  read_sampling(body, error, request, 1);
  if (const auto limit = body.integer("max_completion_tokens", 1, INT32_MAX)) request.tokens_max = limit;
  read_messages(body, request, error);
  read_tools(body, request, error);
  read_tool_choice(body, request, error);
  read_functions(body, request, error);
  request.form = read_answer_form(body, error);
  refuse_other_outputs(body);
  check_unused(body, error);
  const auto effort =
      body.choice("reasoning_effort", {"none", "minimal", "low", "medium", "high", "xhigh", "max"});
  if (effort) {
    request.effort = *effort == "medium"                                           ? Effort::kMedium
                     : *effort == "high" || *effort == "xhigh" || *effort == "max" ? Effort::kHigh
                                                                                   : Effort::kLow;
  }
  request.logprobs = body.boolean("logprobs").value_or(false);
  const auto top = body.integer("top_logprobs", 0, kChatTopLogprobsMax);
  if (top && !request.logprobs) {
    body.fail_with(ApiError::bad_value(
        "top_logprobs", "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."));
  }
  request.top_logprobs = static_cast<int>(top.value_or(0));
  if (error) return std::unexpected(*std::move(error));
  return request;
}

std::expected<CompletionRequest, ApiError> parse_completion_request(std::string_view text) {
  const auto json = parse_object(text);
  if (!json) return std::unexpected(json.error());
  std::optional<ApiError> error;
  CompletionRequest request;
  FieldReader body(*json, "", error);
  read_sampling(body, error, request, 0);
  if (!request.tokens_max) request.tokens_max = 16;  // OpenAI's default
  request.echo = body.boolean("echo").value_or(false);
  request.form = read_answer_form(body, error);
  if (!body.string("suffix").value_or("").empty())
    body.fail_with(ApiError::unsupported("suffix", "'suffix' is not supported: gpt-oss continues text, it does not fill in."));
  if (const auto logprobs = body.integer("logprobs", 0, kCompletionLogprobsMax)) {
    request.logprobs = static_cast<int>(*logprobs);
  }
  request.best_of = static_cast<int>(body.integer("best_of", 1, kBestOfMax).value_or(request.choices));
  if (request.best_of < request.choices)
    body.fail_with(ApiError::bad_value(
        "best_of", fmt::format("'best_of' must be at least 'n', but {} is less than {}.", request.best_of, request.choices)));
  if (request.best_of > request.choices && request.stream)
    body.fail_with(ApiError::bad_value("best_of", "Answers cannot be streamed when 'best_of' is greater than 'n'."));
  read_prompts(body, request);
  if (error) return std::unexpected(*std::move(error));
  return request;
}

}  // namespace capstan::engine

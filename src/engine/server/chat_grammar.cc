// One start node for headers, which every <|start|>assistant leads back to, and one end behind <|return|> or
// <|call|>.
#include "engine/server/chat_grammar.h"

#include <algorithm>

#include "engine/grammar/dfa.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/regex.h"
#include "harmony/conversation.h"

namespace capstan::engine {
namespace {

// Any text; the node it stays at.
NodeId free_text(GrammarBuilder& build, NodeId from, bool reasoning) {
  const NodeId loop = build.new_node();
  build.empty(from, loop);
  build.edge(loop, 0, 255, loop);
  build.node(loop).any_text = true;
  build.node(loop).reasoning = reasoning;
  return loop;
}

Result<NodeId> bound_text(GrammarBuilder& build, NodeId from, const AnswerForm& form) {
  switch (form.kind) {
    case AnswerForm::Kind::kText:
      return free_text(build, from, false);
    case AnswerForm::Kind::kJsonObject:
      return build.call(from, add_json_object(build));
    case AnswerForm::Kind::kJsonSchema: {
      CAPSTAN_TRY(const RuleId rule, add_json_schema(build, form.schema));
      return build.call(from, rule);
    }
    case AnswerForm::Kind::kRegex: {
      CAPSTAN_TRY(const Dfa dfa, parse_pattern(form.text, true));
      return dfa.emit_raw(build, from);
    }
    case AnswerForm::Kind::kChoice: {
      const NodeId behind = build.new_node();
      build.literals(from, form.choices, behind);
      return behind;
    }
    case AnswerForm::Kind::kGrammar: {
      CAPSTAN_TRY(const RuleId rule, add_gbnf(build, form.text));
      return build.call(from, rule);
    }
  }
  return from;
}

ApiError form_error(const AnswerForm& form, const Error& error) {
  const bool schema = form.kind == AnswerForm::Kind::kJsonSchema;
  return ApiError::bad_value(form.param, fmt::format("Invalid {} for '{}': {}.", schema ? "schema" : "value",
                                                     form.param, error.message));
}

class Frame {
 public:
  explicit Frame(bool tools)
      : root_(build_.new_rule()), header_(build_.rule_start(root_)), end_(build_.new_node()) {
    build_.end_rule(root_, end_);
    message("analysis", header_);
    if (tools) message("commentary", header_);
  }

  std::optional<ApiError> add_final(const AnswerForm& form) {
    NodeId at = build_.literal(build_.mark(header_, kChannelSymbol), "final");
    if (form.is_json()) at = content_type(at, "json");
    const auto body = bound_text(build_, build_.mark(at, kMessageSymbol), form);
    if (!body) return form_error(form, body.error());
    build_.edge(*body, kReturnSymbol, kReturnSymbol, end_);
    return std::nullopt;
  }

  // functions.NAME with JSON arguments, bound if the function is strict or `bind`.
  std::optional<ApiError> add_function(const ChatTool& tool, std::size_t index, bool bind) {
    const std::string to = " to=functions." + tool.name;
    const NodeId before_body = build_.new_node();
    NodeId at = build_.literal(header_, to);
    at = build_.literal(build_.mark(at, kChannelSymbol), "commentary");
    build_.edge(content_type(at, "json"), kMessageSymbol, kMessageSymbol, before_body);
    at = build_.literal(build_.mark(header_, kChannelSymbol), "commentary" + to);
    build_.edge(content_type(at, "json"), kMessageSymbol, kMessageSymbol, before_body);
    NodeId body = before_body;
    const Json none =
        Json::object({{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}});
    const Json& schema = tool.parameters.is_object() ? tool.parameters : none;
    if (!tool.strict && !bind) {
      body = free_text(build_, body, false);
    } else if (const auto rule = arguments(schema, tool.strict)) {
      body = build_.call(body, *rule);
    } else {
      ApiError error = ApiError::bad_value(
          fmt::format("tools[{}].{}", index, tool.custom ? "custom.format" : "function.parameters"),
          fmt::format("Invalid schema for function '{}': {}.", tool.name, rule.error().message));
      error.code = "invalid_function_parameters";
      return error;
    }
    build_.edge(body, kCallSymbol, kCallSymbol, end_);
    return std::nullopt;
  }

  void add_python() {
    for (const std::string_view channel : {harmony::kAnalysis, harmony::kCommentary}) {
      const NodeId at =
          build_.literal(build_.mark(header_, kChannelSymbol), std::string(channel) + " to=python");
      const NodeId body = free_text(build_, build_.mark(content_type(at, "code"), kMessageSymbol), false);
      build_.edge(body, kCallSymbol, kCallSymbol, end_);
    }
  }

  std::expected<std::shared_ptr<const Grammar>, ApiError> finish(std::string_view param) && {
    auto grammar = std::move(build_).finish(root_);
    if (!grammar)
      return std::unexpected(
          ApiError::bad_value(param, fmt::format("Invalid '{}': {}.", param, grammar.error().message)));
    return *grammar;
  }

 private:
  // The schema's rule, checked to have an end of its own; for functions that are not strict any object where
  // it cannot be enforced.
  Result<RuleId> arguments(const Json& schema, bool strict) {
    Json object = schema;
    if (!object.contains("type")) object["type"] = "object";
    const auto alone = compile_json_schema(object);
    if (alone) return add_json_schema(build_, object);
    if (strict) return std::unexpected(alone.error());
    return add_json_object(build_);
  }

  // A message that is not the last.
  void message(std::string_view channel, NodeId header) {
    NodeId at = build_.mark(header, kChannelSymbol);
    for (const char c : channel) {
      at = build_.symbols(at, static_cast<Symbol>(c), static_cast<Symbol>(c));
      build_.node(at).reasoning = channel == harmony::kAnalysis;
    }
    at = free_text(build_, build_.mark(at, kMessageSymbol), true);
    at = build_.mark(build_.mark(at, kEndSymbol), kStartSymbol);
    build_.empty(build_.literal(at, "assistant"), header_);
  }

  // Nothing, " TYPE", or <|constrain|>TYPE with or without a space before.
  NodeId content_type(NodeId from, std::string_view type) {
    const NodeId behind = build_.new_node(), before_type = build_.new_node();
    build_.empty(from, behind);
    build_.edge(from, kConstrainSymbol, kConstrainSymbol, before_type);
    const NodeId space = build_.symbols(from, ' ', ' ');
    build_.empty(space, before_type);
    build_.edge(space, kConstrainSymbol, kConstrainSymbol, before_type);
    build_.empty(build_.literal(before_type, type), behind);
    return behind;
  }

  GrammarBuilder build_;
  RuleId root_;
  NodeId header_, end_;
};

}  // namespace

std::expected<std::shared_ptr<const Grammar>, ApiError> chat_grammar(const ChatRequest& request,
                                                                     bool python) {
  Frame frame(!request.tools.empty());
  const bool must_call = request.tool_choice != ToolChoice::kAuto;
  if (!must_call) {
    if (auto error = frame.add_final(request.form)) return std::unexpected(*std::move(error));
  }
  for (std::size_t i = 0; i < request.tools.size(); ++i) {
    const ChatTool& tool = request.tools[i];
    if (request.tool_choice == ToolChoice::kNamed && tool.name != request.tool_named) continue;
    if (python && tool.name == harmony::kPython) {
      frame.add_python();
    } else if (auto error = frame.add_function(tool, i, must_call)) {
      return std::unexpected(*std::move(error));
    }
  }
  return std::move(frame).finish(must_call || request.form.param.empty() ? "tools" : request.form.param);
}

std::expected<std::shared_ptr<const Grammar>, ApiError> text_grammar(const AnswerForm& form) {
  GrammarBuilder build;
  const RuleId root = build.new_rule();
  const auto body = bound_text(build, build.rule_start(root), form);
  if (!body) return std::unexpected(form_error(form, body.error()));
  build.end_rule(root, build.mark(*body, kReturnSymbol));
  auto grammar = std::move(build).finish(root);
  if (!grammar) return std::unexpected(form_error(form, grammar.error()));
  return *grammar;
}

}  // namespace capstan::engine

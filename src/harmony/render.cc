// The header's parts are encoded one by one, as the reference does: "assistant" and " to=functions.f" never
// share a token.
#include "harmony/render.h"

#include "harmony/typescript.h"

namespace capstan::harmony {
namespace {

constexpr std::string_view kPythonDescription =
    "Use this tool to execute Python code in your chain of thought. The code will not be shown to the user. "
    "This "
    "tool should be used for internal reasoning, but not for code that is intended to be visible to the user "
    "(e.g. "
    "when creating plots, tables, or files).\n\nWhen you send a message containing Python code to python, it "
    "will "
    "be executed in a stateful Jupyter notebook environment. python will respond with the output of the "
    "execution "
    "or time out after 120.0 seconds. The drive at '/mnt/data' can be used to save and persist user files. "
    "Internet "
    "access for this session is UNKNOWN. Depends on the cluster.";

std::string_view effort_name(ReasoningEffort effort) {
  switch (effort) {
    case ReasoningEffort::kLow:
      return "low";
    case ReasoningEffort::kMedium:
      return "medium";
    case ReasoningEffort::kHigh:
      return "high";
  }
  return "medium";
}

void add_section(std::string& text, std::string_view section) {
  if (section.empty()) return;
  if (!text.empty()) text += "\n\n";
  text += section;
}

void add_line(std::string& text, std::string_view line) {
  if (!text.empty()) text += "\n";
  text += line;
}

std::vector<TokenId> render_all(const Tokenizer& tokenizer, const FormatTokens& format,
                                const Conversation& conversation) {
  std::vector<TokenId> out;
  const Preamble& preamble = conversation.preamble;
  if (auto text = system_text(preamble); !text.empty()) {
    render_message(tokenizer, format, {.role = Role::kSystem, .text = std::move(text)}, out);
  }
  if (auto text = developer_text(preamble); !text.empty()) {
    render_message(tokenizer, format, {.role = Role::kDeveloper, .text = std::move(text)}, out);
  }
  const std::vector<bool> shown = shown_messages(conversation.messages);
  for (std::size_t i = 0; i < conversation.messages.size(); ++i) {
    if (shown[i]) render_message(tokenizer, format, conversation.messages[i], out);
  }
  return out;
}

}  // namespace

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kDeveloper:
      return "developer";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
    case Role::kTool:
      return "tool";
  }
  return "user";
}

std::string system_text(const Preamble& preamble) {
  if (preamble.system_message == SystemMessage::kOmit) return preamble.python ? "# Tools\n\n## python" : "";
  std::string identity;
  if (!preamble.model_identity.empty()) add_line(identity, preamble.model_identity);
  if (!preamble.knowledge_cutoff.empty())
    add_line(identity, "Knowledge cutoff: " + preamble.knowledge_cutoff);
  if (!preamble.current_date.empty()) add_line(identity, "Current date: " + preamble.current_date);

  std::string text;
  add_section(text, identity);
  add_section(text, fmt::format("Reasoning: {}", effort_name(preamble.effort)));
  if (preamble.python) add_section(text, fmt::format("# Tools\n\n## python\n\n{}", kPythonDescription));
  if (!preamble.channels.empty()) {
    std::string channels = fmt::format("# Valid channels: {}. Channel must be included for every message.",
                                       fmt::join(preamble.channels, ", "));
    if (!preamble.functions.empty()) {
      add_line(channels, "Calls to these tools must go to the commentary channel: 'functions'.");
    }
    add_section(text, channels);
  }
  return text;
}

std::string developer_text(const Preamble& preamble) {
  std::string text;
  if (!preamble.instructions.empty()) add_section(text, "# Instructions\n\n" + preamble.instructions);
  if (!preamble.functions.empty()) {
    add_section(text, "# Tools\n\n" + typescript_namespace("functions", preamble.functions));
  }
  if (!preamble.response_formats.empty()) {
    add_section(text, "# Response Formats");
    for (const ResponseFormat& format : preamble.response_formats) {
      std::string section = fmt::format("## {}\n\n", format.name);
      if (!format.description.empty()) section += fmt::format("// {}\n", format.description);
      add_section(text, section + format.schema.dump());
    }
  }
  return text;
}

void render_message(const Tokenizer& tokenizer, const FormatTokens& format, const Message& message,
                    std::vector<TokenId>& out) {
  const bool named_tool = message.role == Role::kTool && !message.name.empty();
  const std::string recipient = message.recipient.empty() ? "" : " to=" + message.recipient;
  const bool after_channel = message.recipient_after_channel && !message.channel.empty();
  out.push_back(format.start);
  tokenizer.encode_to(named_tool ? std::string_view(message.name) : role_name(message.role), out);
  if (!after_channel) tokenizer.encode_to(recipient, out);
  if (!message.channel.empty()) {
    out.push_back(format.channel);
    tokenizer.encode_to(message.channel, out);
    if (after_channel) tokenizer.encode_to(recipient, out);
  }
  std::string_view type = message.content_type;
  const std::string_view constrain = mark_text(Mark::kConstrain);
  if (type.starts_with(constrain)) {
    tokenizer.encode_to(" ", out);
    type.remove_prefix(constrain.size());
    if (format.constrain >= 0) out.push_back(format.constrain);
    tokenizer.encode_to(type, out);
  } else if (!type.empty()) {
    tokenizer.encode_to(" " + std::string(type), out);
  }
  out.push_back(format.message);
  tokenizer.encode_to(message.text, out);
  out.push_back(message.role == Role::kAssistant && !message.recipient.empty() ? format.call : format.end);
}

std::vector<bool> shown_messages(const std::vector<Message>& messages) {
  std::size_t answered = 0;  // the end of the last turn that is over
  std::size_t after_final = 0;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == Role::kAssistant && messages[i].channel == kFinal) after_final = i + 1;
    if (messages[i].role == Role::kUser) answered = after_final;
  }
  std::vector<bool> shown(messages.size(), true);
  for (std::size_t i = 0; i < answered; ++i) shown[i] = messages[i].channel != kAnalysis;
  return shown;
}

std::vector<TokenId> render_prompt(const Tokenizer& tokenizer, const FormatTokens& format,
                                   const Conversation& conversation) {
  std::vector<TokenId> out = render_all(tokenizer, format, conversation);
  out.push_back(format.start);
  tokenizer.encode_to("assistant", out);
  return out;
}

std::vector<TokenId> render_for_training(const Tokenizer& tokenizer, const FormatTokens& format,
                                         const Conversation& conversation) {
  std::vector<TokenId> out = render_all(tokenizer, format, conversation);
  if (!conversation.messages.empty()) {
    const Message& last = conversation.messages.back();
    if (last.role == Role::kAssistant && last.channel == kFinal) out.back() = format.return_;
  }
  return out;
}

}  // namespace capstan::harmony

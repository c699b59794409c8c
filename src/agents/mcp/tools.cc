#include "agents/mcp/tools.h"

#include <algorithm>

#include "agents/sessions/interpreter.h"
#include "agents/sessions/paths.h"
#include "base/base64.h"
#include "base/text.h"

namespace capstan::agents::mcp {
namespace {

Json property(std::string_view type, std::string_view description) {
  return Json::object({{"type", type}, {"description", description}});
}

Json schema(std::initializer_list<Json::Member> properties, std::initializer_list<Json> required) {
  return Json::object(
      {{"type", "object"}, {"properties", Json::object(properties)}, {"required", Json::array(required)}});
}

Json tool(std::string_view name, std::string_view description, Json input, Json output) {
  const bool reads = name == "read_file" || name == "list_files";
  return Json::object({{"name", name},
                       {"description", description},
                       {"inputSchema", std::move(input)},
                       {"outputSchema", std::move(output)},
                       {"annotations", Json::object({{"readOnlyHint", reads}, {"openWorldHint", false}})}});
}

Json result_of(std::string text, Json structured, bool error = false) {
  return Json::object(
      {{"content", Json::array({Json::object({{"type", "text"}, {"text", std::move(text)}})})},
       {"structuredContent", std::move(structured)},
       {"isError", error}});
}

// Bytes that are no UTF-8 become U+FFFD.
std::string as_utf8(std::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    const std::size_t size = utf8_sequence_length(bytes);
    out += size > 0 ? bytes.substr(0, size) : std::string_view("\xEF\xBF\xBD");
    bytes.remove_prefix(std::max<std::size_t>(size, 1));
  }
  return out;
}

// Output up to a bound; the rest is counted.
class Kept {
 public:
  void add(std::string_view bytes) {
    text_ += bytes.substr(0, kOutputBytesMax - text_.size());
    total_ += bytes.size();
  }
  std::string text() const {
    std::string out = as_utf8(text_);
    if (total_ > text_.size()) out += fmt::format("\n[{} more bytes]", total_ - text_.size());
    return out;
  }
  bool truncated() const { return total_ > text_.size(); }

 private:
  std::string text_;
  std::size_t total_ = 0;
};

class CommandAnswer final : public ProcessListener {
 public:
  explicit CommandAnswer(Done done) : done_(std::move(done)) {}
  void on_output(Channel channel, std::string_view bytes) override {
    (channel == Channel::kOut ? out_ : err_).add(bytes);
  }
  void on_end(const Result<sandbox::CommandResult>& result) override {
    if (!result) return done_(failed_result(result.error().message));
    const std::string out = out_.text(), err = err_.text(), ended = sandbox::ended_name(result->ended);
    std::string text = out;
    if (!err.empty()) text += (text.empty() || text.ends_with('\n') ? "" : "\n") + ("[stderr]\n" + err);
    if (result->ended != sandbox::Ended::kExited)
      text += fmt::format("\n[ended by {}]", ended);
    else if (result->exit_code != 0)
      text += fmt::format("\n[exit code {}]", result->exit_code);
    done_(result_of(std::move(text),
                    Json::object({{"exit_code", result->exit_code},
                                  {"ended", ended},
                                  {"stdout", out},
                                  {"stderr", err},
                                  {"truncated", out_.truncated() || err_.truncated()}}),
                    result->exit_code != 0));
  }

 private:
  Done done_;
  Kept out_, err_;
};

class CodeAnswer final : public CodeSink {
 public:
  explicit CodeAnswer(Done done) : done_(std::move(done)) {}
  void on_line(std::string_view line) override {
    const auto event = Json::parse(line);
    if (!event) return;
    const std::string type = event->get_string("type").value_or("");
    if (type == "stdout") out_.add(event->get_string("text").value_or(""));
    if (type == "stderr") err_.add(event->get_string("text").value_or(""));
    if (type == "result") add_result(*event);
    if (type == "error") error_ = event->get_string("traceback").value_or("");
  }
  void on_done() override {
    std::string text = out_.text();
    const std::string err = err_.text();
    if (!err.empty()) text += "\n[stderr]\n" + err;
    if (!error_.empty()) text += "\n" + error_;
    if (!value_.empty()) text += (text.empty() || text.ends_with('\n') ? "" : "\n") + value_;
    Json answer = result_of(std::move(text),
                            Json::object({{"result", value_}, {"stdout", out_.text()}, {"stderr", err}, {"error", error_}}),
                            !error_.empty());
    for (Json& image : images_.items()) answer["content"].push_back(std::move(image));
    done_(std::move(answer));
  }

 private:
  void add_result(const Json& event) {
    const std::string text = event.get_string("text").value_or("");
    if (event.get_bool("is_main_result").value_or(false)) value_ = text.substr(0, kOutputBytesMax);
    for (const auto& [format, mime] : {std::pair{"png", "image/png"}, std::pair{"jpeg", "image/jpeg"}}) {
      if (const auto data = event.get_string(format))
        images_.push_back(Json::object({{"type", "image"}, {"data", *data}, {"mimeType", mime}}));
    }
  }
  Done done_;
  Kept out_, err_;
  std::string value_, error_;
  Json images_ = Json::array();
};

Result<std::string> text_argument(const Json& arguments, std::string_view name) {
  const auto value = arguments.get_string(name);
  if (!value) return fail(Code::kInvalid, "the argument '{}' is missing; it must be a string", name);
  return *value;
}

Result<Cancel> run_command(const SessionPtr& session, const Json& arguments, const Done& done) {
  CAPSTAN_TRY(const std::string command, text_argument(arguments, "command"));
  const std::int64_t timeout_s = arguments.get_int("timeout_s").value_or(kTimeoutSDefault);
  if (timeout_s < 1 || timeout_s > kTimeoutSMax)
    return fail(Code::kInvalid, "timeout_s is {}; it must be between 1 and {}", timeout_s, kTimeoutSMax);
  ProcessSpec spec{.argv = {"/bin/bash", "-l", "-c", command},
                   .cwd = arguments.get_string("cwd").value_or(""),
                   .wall_ms = timeout_s * 1000};
  CAPSTAN_TRY(const ProcessPtr process, session->start(std::move(spec), std::make_shared<CommandAnswer>(done)));
  return [process] { process->kill(); };
}

Result<Cancel> run_code(const SessionPtr& session, const Json& arguments, const Done& done) {
  CAPSTAN_TRY(const std::string code, text_argument(arguments, "code"));
  const auto answer = std::make_shared<CodeAnswer>(done);
  CAPSTAN_CHECK(session->interpreter().execute(
      {.code = code, .language = arguments.get_string("language").value_or("")}, answer));
  return [session, answer, done] {
    session->interpreter().abandon(answer);
    done(failed_result("cancelled"));
  };
}

Result<Json> read_file(Session& session, const Json& arguments) {
  CAPSTAN_TRY(const std::string path, text_argument(arguments, "path"));
  CAPSTAN_TRY(const std::string bytes, session.read(path));
  const std::int64_t offset = arguments.get_int("offset").value_or(0);
  const std::int64_t limit = arguments.get_int("limit").value_or(kReadBytesMax);
  if (offset < 0 || limit < 1 || limit > kReadBytesMax)
    return fail(Code::kInvalid, "offset must not be negative, limit between 1 and {}", kReadBytesMax);
  const auto begin = std::min(static_cast<std::size_t>(offset), bytes.size());
  const std::string_view piece = std::string_view(bytes).substr(begin, static_cast<std::size_t>(limit));
  std::string text = as_utf8(piece);
  const bool more = begin + piece.size() < bytes.size();
  Json structured = Json::object({{"content", text}, {"bytes", std::ssize(bytes)}, {"truncated", more}});
  const std::size_t end = begin + piece.size();
  if (more) text += fmt::format("\n[{} more bytes; read on with offset {}]", bytes.size() - end, end);
  return result_of(std::move(text), std::move(structured));
}

Result<Json> write_file(Session& session, const Json& arguments) {
  CAPSTAN_TRY(const std::string path, text_argument(arguments, "path"));
  CAPSTAN_TRY(const std::string content, text_argument(arguments, "content"));
  CAPSTAN_CHECK(session.write(path, content));
  CAPSTAN_TRY(const std::string inside, path_inside(path));
  return result_of(fmt::format("wrote {} bytes to {}", content.size(), shown_path(inside)),
                   Json::object({{"path", shown_path(inside)}, {"bytes", std::ssize(content)}}));
}

Result<Json> list_files(Session& session, const Json& arguments) {
  CAPSTAN_TRY(const std::string inside, path_inside(arguments.get_string("path").value_or(std::string(kHome))));
  CAPSTAN_TRY(auto entries, session.list(inside));
  std::ranges::sort(entries, {}, &sandbox::InsideEntry::name);
  std::string text;
  Json files = Json::array();
  for (const auto& entry : entries) {
    const std::string_view type = entry.type == 'd' ? "directory" : entry.type == 'f' ? "file" : "other";
    text += entry.name + (entry.type == 'd' ? "/\n" : fmt::format("  {} bytes\n", entry.bytes));
    files.push_back(Json::object({{"name", entry.name}, {"type", type}, {"bytes", entry.bytes}}));
  }
  return result_of(text.empty() ? "(empty)" : std::move(text),
                   Json::object({{"path", shown_path(inside)}, {"files", std::move(files)}}));
}

}  // namespace

Json failed_result(std::string_view message) {
  return Json::object({{"content", Json::array({Json::object({{"type", "text"}, {"text", message}})})},
                       {"isError", true}});
}

Json tool_list() {
  const Json path = property("string", "absolute, or relative to /home/user");
  return Json::array(
      {tool("run_command", "Runs a shell command in the sandbox and waits for it. Files stay between calls.",
            schema({{"command", property("string", "for bash -l -c")},
                    {"cwd", property("string", "where it runs; /home/user unless given")},
                    {"timeout_s", property("integer", "killed after so many seconds; 60 unless given, at most 3600")}},
                   {"command"}),
            schema({{"exit_code", property("integer", "as a shell says it")},
                    {"ended", property("string", "exited, signalled, memory, wall_time, output, killed")},
                    {"stdout", property("string", "")},
                    {"stderr", property("string", "")},
                    {"truncated", property("boolean", "output was longer than what is kept")}},
                   {"exit_code", "ended", "stdout", "stderr", "truncated"})),
       tool("run_code",
            "Runs Python in the sandbox. Variables stay between calls; the last expression's value is the result.",
            schema({{"code", property("string", "Python source")}, {"language", property("string", "python")}}, {"code"}),
            schema({{"result", property("string", "the last expression's value, as text")},
                    {"stdout", property("string", "")},
                    {"stderr", property("string", "")},
                    {"error", property("string", "the traceback, or empty")}},
                   {"result", "stdout", "stderr", "error"})),
       tool("read_file", "Reads a file of the sandbox.",
            schema({{"path", path},
                    {"offset", property("integer", "bytes to skip")},
                    {"limit", property("integer", "bytes to read, at most 1048576")}},
                   {"path"}),
            schema({{"content", property("string", "")},
                    {"bytes", property("integer", "of the whole file")},
                    {"truncated", property("boolean", "there is more")}},
                   {"content", "bytes", "truncated"})),
       tool("write_file", "Writes a file of the sandbox, replacing it, and makes missing directories.",
            schema({{"path", path}, {"content", property("string", "text")}}, {"path", "content"}),
            schema({{"path", property("string", "")}, {"bytes", property("integer", "")}}, {"path", "bytes"})),
       tool("list_files", "Lists a directory of the sandbox.", schema({{"path", path}}, {}),
            schema({{"path", property("string", "")},
                    {"files", Json::object({{"type", "array"},
                                            {"items", schema({{"name", property("string", "")},
                                                              {"type", property("string", "file, directory or other")},
                                                              {"bytes", property("integer", "")}},
                                                             {"name", "type", "bytes"})}})}},
                   {"path", "files"}))});
}

bool is_tool(const std::string& name) {
  constexpr std::string_view kNames[] = {"run_command", "run_code", "read_file", "write_file", "list_files"};
  return std::ranges::find(kNames, name) != std::end(kNames);
}

Cancel call_tool(const SessionPtr& session, const std::string& name, const Json& arguments, Done done) {
  if (name == "run_command" || name == "run_code") {
    auto started = name == "run_command" ? run_command(session, arguments, done) : run_code(session, arguments, done);
    if (started) return std::move(*started);
    done(failed_result(started.error().message));
    return [] {};
  }
  const auto result = name == "read_file"    ? read_file(*session, arguments)
                      : name == "write_file" ? write_file(*session, arguments)
                                             : list_files(*session, arguments);
  done(result ? *result : failed_result(result.error().message));
  return [] {};
}

}  // namespace capstan::agents::mcp

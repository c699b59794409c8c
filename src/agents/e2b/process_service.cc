// process.Process: start, follow, feed and end commands.
#include "agents/e2b/connect.h"
#include "agents/e2b/e2b.h"
#include "agents/e2b/process_stream.h"
#include "base/base64.h"
#include "base/text.h"

namespace capstan::agents::e2b {
namespace {

constexpr std::size_t kWordsMax = 4'096;  // arguments, variables
constexpr std::int64_t kRowsMax = 10'000;

Result<ProcessPtr> selected(const Session& session, const Json& message) {
  const Json* selector = message.find("process");
  if (selector != nullptr) {
    if (const auto pid = selector->get_int("pid")) return session.process(static_cast<int>(*pid));
    if (const auto tag = selector->get_string("tag")) return session.process(*tag);
  }
  return fail(Code::kInvalid, "the request selects no process: process.pid or process.tag");
}

Result<TerminalSize> size_of(const Json& pty) {
  const Json* size = pty.find("size");
  TerminalSize out;
  if (size == nullptr) return out;
  const std::int64_t rows = size->get_int("rows").value_or(out.rows);
  const std::int64_t columns = size->get_int("cols").value_or(out.columns);
  if (rows < 1 || rows > kRowsMax || columns < 1 || columns > kRowsMax)
    return fail(Code::kInvalid, "a terminal of {} rows and {} columns; 1 to {} are possible", rows, columns, kRowsMax);
  return TerminalSize{static_cast<int>(rows), static_cast<int>(columns)};
}

Result<ProcessSpec> spec_of(const Json& message) {
  const Json* process = message.find("process");
  const std::string cmd = process != nullptr ? process->get_string("cmd").value_or("") : "";
  if (cmd.empty()) return fail(Code::kInvalid, "the request names no program: process.cmd");
  ProcessSpec spec{.argv = {cmd},
                   .cwd = process->get_string("cwd").value_or(""),
                   .tag = message.get_string("tag").value_or(""),
                   .input = message.get_bool("stdin").value_or(true)};
  if (const Json* args = process->find("args"); args != nullptr && args->is_array()) {
    if (args->size() > kWordsMax) return fail(Code::kInvalid, "more than {} arguments", kWordsMax);
    for (const Json& one : args->items()) {
      if (!one.is_string()) return fail(Code::kInvalid, "process.args holds something that is no string");
      spec.argv.push_back(one.as_string());
    }
  }
  if (const Json* envs = process->find("envs"); envs != nullptr && envs->is_object()) {
    if (envs->size() > kWordsMax) return fail(Code::kInvalid, "more than {} variables", kWordsMax);
    for (const auto& [name, value] : envs->members()) {
      if (name.empty() || name.find('=') != name.npos || !value.is_string())
        return fail(Code::kInvalid, "process.envs holds '{}', which is no name with a string", name);
      spec.env.push_back(name + "=" + value.as_string());
    }
  }
  if (const Json* pty = message.find("pty"); pty != nullptr && pty->is_object()) {
    CAPSTAN_TRY(spec.terminal, size_of(*pty));
  }
  return spec;
}

std::int64_t header_number(const http::Request& request, std::string_view name) {
  return std::max<std::int64_t>(parse_int(request.headers.get(name)).value_or(0), 0);
}

std::shared_ptr<ProcessStream> stream_for(const http::Request& request, const http::ResponseWriterPtr& writer) {
  return std::make_shared<ProcessStream>(writer, header_number(request, "keepalive-ping-interval"));
}

Result<void> start(const SessionPtr& session, const Json& message, const http::Request& request,
                   const http::ResponseWriterPtr& writer) {
  CAPSTAN_TRY(ProcessSpec spec, spec_of(message));
  if (const std::int64_t timeout_ms = header_number(request, "connect-timeout-ms"); timeout_ms > 0)
    spec.wall_ms = std::min(spec.wall_ms, timeout_ms);
  CAPSTAN_TRY(const ProcessPtr process, session->start(std::move(spec), stream_for(request, writer)));
  return {};
}

Result<void> connect(const SessionPtr& session, const Json& message, const http::Request& request,
                     const http::ResponseWriterPtr& writer) {
  CAPSTAN_TRY(const ProcessPtr process, selected(*session, message));
  process->listen(stream_for(request, writer));
  return {};
}

Result<Json> list(Session& session, const Json&) {
  Json all = Json::array();
  for (const ProcessPtr& process : session.processes()) {
    Json args = Json::array(), envs = Json::object();
    const ProcessSpec& spec = process->spec();
    for (std::size_t i = 1; i < spec.argv.size(); ++i) args.push_back(spec.argv[i]);
    for (const std::string& entry : spec.env) envs[entry.substr(0, entry.find('='))] = entry.substr(entry.find('=') + 1);
    Json one = Json::object({{"pid", process->number()},
                             {"config", Json::object({{"cmd", spec.argv[0]},
                                                      {"args", std::move(args)},
                                                      {"envs", std::move(envs)},
                                                      {"cwd", spec.cwd}})}});
    if (!spec.tag.empty()) one["tag"] = spec.tag;
    all.push_back(std::move(one));
  }
  return Json::object({{"processes", std::move(all)}});
}

Result<void> feed(Process& process, const Json* input) {
  if (input == nullptr) return fail(Code::kInvalid, "the request holds no input");
  auto text = input->get_string("stdin");
  if (!text) text = input->get_string("pty");
  const auto bytes = text ? base64_decode(*text) : std::nullopt;
  if (!bytes) return fail(Code::kInvalid, "input.stdin or input.pty must be base64");
  return process.write_input(*bytes);
}

Result<Json> send_input(Session& session, const Json& message) {
  CAPSTAN_TRY(const ProcessPtr process, selected(session, message));
  CAPSTAN_CHECK(feed(*process, message.find("input")));
  return Json::object();
}

Result<Json> close_stdin(Session& session, const Json& message) {
  CAPSTAN_TRY(const ProcessPtr process, selected(session, message));
  CAPSTAN_CHECK(process->close_input());
  return Json::object();
}

Result<Json> send_signal(Session& session, const Json& message) {
  CAPSTAN_TRY(const ProcessPtr process, selected(session, message));
  const Json* signal = message.find("signal");
  const std::string name = signal != nullptr && signal->is_string() ? signal->as_string() : "";
  const std::int64_t number = signal != nullptr && signal->is_int() ? signal->as_int() : 0;
  if (name == "SIGNAL_SIGKILL" || number == 9)
    process->kill();
  else if (name == "SIGNAL_SIGTERM" || number == 15)
    process->signal(15);
  else
    return fail(Code::kInvalid, "signal must be SIGNAL_SIGTERM or SIGNAL_SIGKILL");
  return Json::object();
}

Result<Json> update(Session& session, const Json& message) {
  CAPSTAN_TRY(const ProcessPtr process, selected(session, message));
  const Json* pty = message.find("pty");
  if (pty == nullptr) return Json::object();
  CAPSTAN_TRY(const TerminalSize size, size_of(*pty));
  CAPSTAN_CHECK(process->resize(size));
  return Json::object();
}

// A client's stream arrives whole: its messages are applied in order.
Result<void> stream_input(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, session_of(request, manager));
  CAPSTAN_TRY(const auto messages, read_messages(request));
  ProcessPtr process;
  for (const Json& message : messages) {
    if (const Json* begin = message.find("start")) {
      CAPSTAN_TRY(process, selected(*session, *begin));
    } else if (const Json* data = message.find("data")) {
      if (!process) return fail(Code::kInvalid, "input came before the process was selected");
      CAPSTAN_CHECK(feed(*process, data->find("input")));
    }
  }
  return {};
}

}  // namespace

void add_process_routes(http::Router& router, SessionManager& manager) {
  add_stream(router, manager, "/process.Process/Start", start);
  add_stream(router, manager, "/process.Process/Connect", connect);
  add_unary(router, manager, "/process.Process/List", list);
  add_unary(router, manager, "/process.Process/SendInput", send_input);
  add_unary(router, manager, "/process.Process/CloseStdin", close_stdin);
  add_unary(router, manager, "/process.Process/SendSignal", send_signal);
  add_unary(router, manager, "/process.Process/Update", update);
  router.add("POST", "/process.Process/StreamInput",
             [&manager](const http::Request& request, const http::ResponseWriterPtr& writer) {
               if (const auto done = stream_input(request, manager); !done)
                 return writer->respond(refusal(request, done.error()));
               writer->respond({.status = 200,
                                .headers = stream_headers(),
                                .body = frame(Json::object()) + end_frame()});
             });
}

}  // namespace capstan::agents::e2b

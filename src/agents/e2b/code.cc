// /execute and /contexts: what E2B's code interpreter asks of a sandbox. An event a line.
#include "agents/e2b/e2b.h"
#include "agents/sessions/interpreter.h"

namespace capstan::agents::e2b {
namespace {

http::Response refused(const Error& error) {
  const int status = error.code == Code::kUnavailable ? 502
                     : error.code == Code::kNotFound  ? 404
                     : error.code == Code::kInvalid   ? 400
                     : error.code == Code::kDenied    ? 401
                     : error.code == Code::kExhausted ? 429
                     : error.code == Code::kConflict  ? 409
                                                      : 500;
  return http::Response::json(status, Json::object({{"code", status}, {"message", error.message}}));
}

class LineAnswer final : public CodeSink, public std::enable_shared_from_this<LineAnswer> {
 public:
  explicit LineAnswer(http::ResponseWriterPtr writer) : writer_(std::move(writer)) {}
  void on_line(std::string_view json) override {
    begin();
    std::string line(json);
    line += '\n';
    writer_->write(line);
  }
  void on_done() override {
    begin();
    writer_->finish();
  }
  std::size_t backlog_bytes() override { return writer_->unsent_bytes(); }
  void when_caught_up(std::function<void()> callback) override { writer_->when_sent(std::move(callback)); }

 private:
  void begin() {
    if (!std::exchange(begun_, true)) writer_->start(200, {{"content-type", "application/x-ndjson"}});
  }
  const http::ResponseWriterPtr writer_;
  bool begun_ = false;
};

Result<Json> body_of(const http::Request& request) {
  CAPSTAN_TRY(Json body, Json::parse(request.body.empty() ? "{}" : std::string_view(request.body)));
  if (!body.is_object()) return fail(Code::kInvalid, "the body must be an object");
  return body;
}

Result<void> execute(const http::Request& request, const SessionManager& manager,
                     const http::ResponseWriterPtr& writer) {
  CAPSTAN_TRY(const SessionPtr session, session_of(request, manager));
  CAPSTAN_TRY(const Json body, body_of(request));
  const auto code = body.get_string("code");
  if (!code) return fail(Code::kInvalid, "the request holds no code");
  Cell cell{.code = *code,
            .context = body.get_string("context_id").value_or(""),
            .language = body.get_string("language").value_or("")};
  if (const Json* env = body.find("env_vars"); env != nullptr && env->is_object()) {
    for (const auto& [name, value] : env->members()) {
      if (!value.is_string()) return fail(Code::kInvalid, "env_vars.{} is not a string", name);
      cell.env[name] = value.as_string();
    }
  }
  const auto answer = std::make_shared<LineAnswer>(writer);
  CAPSTAN_CHECK(session->interpreter().execute(cell, answer));
  writer->on_client_gone([session, answer] { session->interpreter().abandon(answer); });
  return {};
}

Json json_of(const CodeContext& context) {
  return Json::object({{"id", context.id}, {"language", context.language}, {"cwd", context.cwd}});
}

using Call = std::function<Result<http::Response>(Session&, const http::Request&)>;
void add(http::Router& router, SessionManager& manager, std::string method, std::string path, Call call) {
  router.add(std::move(method), std::move(path),
             [&manager, call = std::move(call)](const http::Request& request, const http::ResponseWriterPtr& writer) {
               const auto session = session_of(request, manager);
               if (!session) return writer->respond(refused(session.error()));
               auto answer = call(**session, request);
               writer->respond(answer ? std::move(*answer) : refused(answer.error()));
             });
}

}  // namespace

void add_code_routes(http::Router& router, SessionManager& manager) {
  router.add("POST", "/execute", [&manager](const http::Request& request, const http::ResponseWriterPtr& writer) {
    if (const auto begun = execute(request, manager, writer); !begun) writer->respond(refused(begun.error()));
  });
  add(router, manager, "GET", "/contexts", [](Session& session, const http::Request&) -> Result<http::Response> {
    Json all = Json::array();
    for (const auto& context : session.interpreter().list()) all.push_back(json_of(context));
    return http::Response::json(200, all);
  });
  add(router, manager, "POST", "/contexts", [](Session& session, const http::Request& request) -> Result<http::Response> {
    CAPSTAN_TRY(const Json body, body_of(request));
    CAPSTAN_TRY(const CodeContext made, session.interpreter().add(body.get_string("language").value_or(""),
                                                                  body.get_string("cwd").value_or("")));
    return http::Response::json(201, json_of(made));
  });
  add(router, manager, "DELETE", "/contexts/{id}",
      [](Session& session, const http::Request& request) -> Result<http::Response> {
        CAPSTAN_CHECK(session.interpreter().remove(request.param("id")));
        return http::Response{.status = 204};
      });
  add(router, manager, "POST", "/contexts/{id}/restart",
      [](Session& session, const http::Request& request) -> Result<http::Response> {
        CAPSTAN_CHECK(session.interpreter().restart(request.param("id")));
        return http::Response{.status = 204};
      });
}

}  // namespace capstan::agents::e2b

// How it works: a Connect stream of the process's events is read on the main thread; a second one, if input is wanted,
// reads standard input and sends it. A terminal is in raw mode meanwhile, so that Ctrl-C goes to the command.
#include "cli/session_exec.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <optional>
#include <thread>

#include "base/base64.h"
#include "cli/commands.h"
#include "cli/format.h"
#include "cli/session_api.h"

namespace capstan::cli {
namespace {

constexpr std::size_t kPrefixBytes = 5;
constexpr int kInputPollMs = 100;
constexpr int kEndAgainPolls = 5;

// A session, and the token that opens it.
struct Access {
  SessionApi api;
  std::string id, token;

  http::Request call(std::string method, std::string path) const {
    return {.method = std::move(method),
            .target = std::move(path),
            .headers = {{"e2b-sandbox-id", id}, {"x-access-token", token}}};
  }
};

Result<Access> access(const Globals& globals, const std::string& id) {
  CAPSTAN_TRY(SessionApi api, SessionApi::connect(globals.connection));
  CAPSTAN_TRY(const http::Response answer, api.send({.method = "GET", .target = "/sandboxes/" + url_encode(id)}));
  CAPSTAN_TRY(const Json json, Json::parse(answer.body));
  return Access{std::move(api), id, text_of(json, "envdAccessToken")};
}

class RawTerminal {
 public:
  explicit RawTerminal(bool wanted) : on_(wanted && ::tcgetattr(STDIN_FILENO, &before_) == 0) {
    if (!on_) return;
    termios raw = before_;
    ::cfmakeraw(&raw);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  ~RawTerminal() {
    if (on_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

 private:
  termios before_{};
  const bool on_;
};

std::string framed(const std::string& message) {
  std::string out(1, '\0');
  for (const int shift : {24, 16, 8, 0}) out.push_back(static_cast<char>(message.size() >> shift & 0xFF));
  return out + message;
}

winsize terminal_size() {
  winsize size{};
  if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) size = {24, 80, 0, 0};
  return size;
}

Json pty_message(const winsize& size) {
  return Json::object({{"size", Json::object({{"rows", int{size.ws_row}}, {"cols", int{size.ws_col}}})}});
}

Json start_message(const SessionExecOptions& options, const Json& env) {
  const bool word = options.command.size() == 1;
  Json args = word ? Json::array({"-l", "-c", options.command[0]}) : Json::array();
  for (std::size_t i = 1; i < options.command.size(); ++i) args.push_back(options.command[i]);
  Json process =
      Json::object({{"cmd", word ? "/bin/bash" : options.command[0]}, {"args", std::move(args)}, {"envs", env}});
  if (!options.cwd.empty()) process["cwd"] = options.cwd;
  Json message = Json::object({{"process", std::move(process)}, {"stdin", options.input}});
  if (options.terminal) {
    message["pty"] = pty_message(terminal_size());
    message["process"]["envs"]["TERM"] = "xterm-256color";
  }
  return message;
}

// Reads standard input until its end or `over`, and sends it; tells a terminal when the window's size has changed.
void feed(Access& to, std::int64_t pid, bool terminal, const std::atomic<bool>& over) {
  const Json which = Json::object({{"pid", pid}});
  const auto post = [&](const char* call, Json message) {
    message["process"] = which;
    http::Request request = to.call("POST", std::string("/process.Process/") + call);
    request.headers.set("content-type", "application/json");
    request.body = message.dump();
    return to.api.send(std::move(request)).has_value();
  };
  const auto input = [&](std::string_view bytes) {
    const char* kind = terminal ? "pty" : "stdin";
    return post("SendInput", Json::object({{"input", Json::object({{kind, base64_encode(bytes)}})}}));
  };
  winsize known = terminal_size();
  while (!over) {
    if (const winsize now = terminal_size(); terminal && (now.ws_row != known.ws_row || now.ws_col != known.ws_col)) {
      known = now;
      post("Update", Json::object({{"pty", pty_message(now)}}));
    }
    pollfd ready{STDIN_FILENO, POLLIN, 0};
    if (::poll(&ready, 1, kInputPollMs) <= 0) continue;
    char buffer[16 << 10];
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (count <= 0) {
      if (!terminal) post("CloseStdin", Json::object());
      // A terminal's input ends by a character; whoever does not read yet, or has half a line, needs it again.
      for (int polls = 0; terminal && !over; ++polls) {
        if (polls % kEndAgainPolls == 0) input("\x04");
        ::poll(nullptr, 0, kInputPollMs);
      }
      return;
    }
    if (!input({buffer, static_cast<std::size_t>(count)})) return;
  }
}

// What the stream's frames say.
class Follower {
 public:
  std::function<void(std::int64_t pid)> on_start;
  int exit_code = kFailed;
  std::optional<std::string> error;

  bool take(std::string_view piece) {
    pending_ += piece;
    while (pending_.size() >= kPrefixBytes) {
      std::size_t size = 0;
      for (std::size_t i = 1; i < kPrefixBytes; ++i) size = size << 8 | static_cast<unsigned char>(pending_[i]);
      if (pending_.size() < kPrefixBytes + size) return true;
      const auto message = Json::parse(std::string_view(pending_).substr(kPrefixBytes, size));
      pending_.erase(0, kPrefixBytes + size);
      if (message) understand(*message);
    }
    return true;
  }

 private:
  void understand(const Json& message) {
    if (const Json* wrong = message.find("error")) error = text_of(*wrong, "message");
    const Json* event = message.find("event");
    if (event == nullptr) return;
    if (const Json* start = event->find("start")) on_start(number_of(*start, "pid"));
    if (const Json* end = event->find("end")) exit_code = static_cast<int>(number_of(*end, "exitCode"));
    const Json* data = event->find("data");
    if (data == nullptr) return;
    for (const auto& [name, value] : data->members()) {
      const auto bytes = base64_decode(value.is_string() ? value.as_string() : "");
      std::FILE* to = name == "stderr" ? stderr : stdout;
      if (bytes) std::fwrite(bytes->data(), 1, bytes->size(), to);
      std::fflush(to);
    }
  }
  std::string pending_;
};

}  // namespace

int exec_in_session(const Globals& globals, const SessionExecOptions& options, const Json& env) {
  auto to = access(globals, options.id);
  if (!to) return report(to.error());
  http::Request request = to->call("POST", "/process.Process/Start");
  request.headers.set("content-type", "application/connect+json");
  if (options.timeout_s > 0) request.headers.set("connect-timeout-ms", std::to_string(options.timeout_s * 1000));
  request.body = framed(start_message(options, env).dump());
  const RawTerminal raw(options.terminal);
  std::atomic<bool> over{false};
  std::thread feeder;
  auto feeding = access(globals, options.id);  // a connection of its own
  if (!feeding) return report(feeding.error());
  Follower follower;
  follower.on_start = [&](std::int64_t pid) {
    if (options.input || options.terminal)
      feeder = std::thread([&, pid] { feed(*feeding, pid, options.terminal, over); });
  };
  const auto done = to->api.stream(std::move(request), [&](std::string_view piece) { return follower.take(piece); });
  over = true;
  if (feeder.joinable()) feeder.join();
  if (!done) return report(done.error());
  if (follower.error) return report(Error{Code::kConflict, *follower.error, {}});
  return follower.exit_code;
}

Result<void> stream_in_session(const Globals& globals, const std::string& id, const std::string& path, std::string body,
                               const std::string& content_type, const OnPiece& on_piece) {
  CAPSTAN_TRY(Access to, access(globals, id));
  http::Request request = to.call("POST", path);
  request.headers.set("content-type", content_type);
  request.body = std::move(body);
  return to.api.stream(std::move(request), on_piece);
}

Result<Json> put_into_session(const Globals& globals, const std::string& id, const std::string& path, std::string bytes) {
  CAPSTAN_TRY(Access to, access(globals, id));
  http::Request request = to.call("POST", "/files?path=" + url_encode(path));
  request.headers.set("content-type", "application/octet-stream");
  request.body = std::move(bytes);
  CAPSTAN_TRY(const http::Response answer, to.api.send(std::move(request)));
  return Json::parse(answer.body);
}

Result<void> get_from_session(const Globals& globals, const std::string& id, const std::string& path,
                              const OnPiece& on_piece) {
  CAPSTAN_TRY(Access to, access(globals, id));
  return to.api.stream(to.call("GET", "/files?path=" + url_encode(path)), on_piece);
}

}  // namespace capstan::cli

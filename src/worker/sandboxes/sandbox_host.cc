#include "worker/sandboxes/sandbox_host.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/build_id.h"
#include "base/log.h"
#include "http/client.h"
#include "worker/shim/records.h"

namespace capstan::worker {
namespace {

constexpr const char* kPlace = "session-host.json";
constexpr std::int64_t kRestartMs = 1'000;
constexpr int kStartMs = 3'000;  // from its start until it has said where it is
constexpr int kStopMs = 10'000;
constexpr int kAnswerMs = 5'000;
constexpr int kMakeMs = 900'000;  // a template may have to be unpacked, its packages installed

}  // namespace

SessionHostProcess::SessionHostProcess(const DataDirectory& data, std::filesystem::path program,
                                       std::vector<std::string> arguments)
    : data_(data), program_(std::move(program)), arguments_(std::move(arguments)) {}

bool SessionHostProcess::runs() const {
  const Descriptor place(::openat(data_.worker_fd(), kPlace, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  return place && ::flock(place.get(), LOCK_SH | LOCK_NB) != 0;
}

void SessionHostProcess::keep() {
  if (arguments_.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    const std::int64_t now_ms = shim::monotonic_ms();
    if (started_ms_ != 0 && now_ms - started_ms_ < kRestartMs) return;
    if (!runs()) {
      started_ms_ = now_ms;
      return spawn();
    }
    // What this worker started is as new as the program that lies there, whatever that is by now.
    if (started_ms_ != 0) return;
  }
  replace_other_build();
}

// One that runs on after an upgrade leaves as soon as it has no session; until then it says how many.
void SessionHostProcess::replace_other_build() {
  const std::int64_t now_ms = shim::monotonic_ms();
  if (asked_ms_ != 0 && now_ms - asked_ms_ < kRestartMs) return;
  asked_ms_ = now_ms;
  const auto address = this->address();
  if (!address || !address->get_int("port")) return;
  const std::string build = address->get_string("build").value_or("unknown");
  if (build == build_id()) return;
  const auto retired = ask("POST", "/host/retire", "", kAnswerMs);
  if (retired) return log_info("the session host of another build leaves", "build={} own={}", build, build_id());
  if (std::exchange(told_, build) == build) return;
  log_warn("the session host is of another build; it is replaced when it has no session left, or by `capstan down`",
           "build={} own={} why=\"{}\"", build, build_id(), retired.error().message);
}

// Twice forked and in a session of its own: it is nobody's child, and outlives this process.
void SessionHostProcess::spawn() const {
  std::vector<std::string> words{program_.filename()};
  words.insert(words.end(), arguments_.begin(), arguments_.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string program = program_.string();
  const pid_t middle = ::fork();
  if (middle < 0) return log_error("cannot start the session host", "errno={}", errno);
  if (middle == 0) {
    ::setsid();
    if (::fork() != 0) ::_exit(0);
    ::close_range(3, ~0u, 0);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(middle, &status, 0) < 0 && errno == EINTR) {
  }
  log_info("session host started");
}

Result<Json> SessionHostProcess::ask(std::string method, std::string target, std::string body, int timeout_ms) const {
  CAPSTAN_TRY(const Address to, listens());
  http::Client client;
  const auto answer = client.request(to.url,
                                     {.method = std::move(method),
                                      .target = std::move(target),
                                      .headers = {{kHostTokenHeader, to.token}, {"content-type", "application/json"}},
                                      .body = std::move(body)},
                                     {.timeout_ms = timeout_ms});
  if (!answer) return fail(Code::kUnavailable, "the session host does not answer: {}", answer.error().message);
  auto json = answer->body.empty() ? Result<Json>(Json::object()) : Json::parse(answer->body);
  if (answer->status < 300 && json) return json;
  const std::string why = json ? json->get_string("message").value_or("") : "";
  const Code code = answer->status == 503   ? Code::kUnavailable
                    : answer->status == 429 ? Code::kExhausted
                                            : Code::kInvalid;
  return fail(code, "{}", why.empty() ? fmt::format("the session host answers {}", answer->status) : why);
}

Result<SessionHostProcess::Address> SessionHostProcess::listens() const {
  const auto address = this->address();
  if (!address || !address->get_int("port")) return fail(Code::kUnavailable, "the session host of this host does not run");
  return Address{fmt::format("http://127.0.0.1:{}", *address->get_int("port")), address->get_string("token").value_or("")};
}

Result<std::string> SessionHostProcess::put(const std::string& key, const Json& terms) {
  CAPSTAN_TRY(const Json answer, ask("PUT", "/host/placed/" + key, terms.dump(), kMakeMs));
  return answer.get_string("session").value_or("");
}

Result<std::vector<PlacedSandbox>> SessionHostProcess::list() {
  CAPSTAN_TRY(const Json answer, ask("GET", "/host/placed", "", kAnswerMs));
  std::vector<PlacedSandbox> out;
  const Json* list = answer.find("placed");
  if (list == nullptr || !list->is_array()) return fail(Code::kUnavailable, "the session host's list is none");
  for (const Json& one : list->items()) {
    out.push_back({one.get_string("key").value_or(""), one.get_string("session").value_or(""),
                   one.get_string("state").value_or("") == "ended", one.get_string("how").value_or("")});
  }
  return out;
}

Result<void> SessionHostProcess::end(const std::string& key, std::int64_t grace_ms) {
  CAPSTAN_TRY(const Json answer, ask("DELETE", fmt::format("/host/placed/{}?grace_ms={}", key, grace_ms), "", kAnswerMs));
  (void)answer;
  return {};
}

Result<void> SessionHostProcess::forget(const std::string& key) {
  CAPSTAN_TRY(const Json answer, ask("DELETE", fmt::format("/host/placed/{}?forget=1", key), "", kAnswerMs));
  (void)answer;
  return {};
}

void SessionHostProcess::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  const std::int64_t now_ms = shim::monotonic_ms();
  const bool starts = started_ms_ != 0 && now_ms - started_ms_ < kStartMs;
  pid_t pid = process();
  while (pid == 0 && (starts || runs()) && shim::monotonic_ms() - now_ms < kStartMs) {
    ::poll(nullptr, 0, 20);
    pid = process();
  }
  if (pid == 0) return;
  ::kill(pid, SIGTERM);
  for (int waited_ms = 0; runs(); waited_ms += 20) {
    if (waited_ms == kStopMs) ::kill(pid, SIGKILL);
    if (waited_ms > 2 * kStopMs) return;
    ::poll(nullptr, 0, 20);
  }
}

Result<Json> SessionHostProcess::address() const {
  if (!runs()) return fail(Code::kNotFound, "it does not run");
  CAPSTAN_TRY(const std::string text, read_below(data_.worker_fd(), kPlace));
  return Json::parse(text);
}

pid_t SessionHostProcess::process() const {
  const auto address = this->address();
  const auto pid = address ? static_cast<pid_t>(address->get_int("pid").value_or(0)) : 0;
  return pid > 1 ? pid : 0;
}

}  // namespace capstan::worker

// How: a run is a few requests one after the other: the container's session made, or prolonged; the files that it lacks; then
// its code, whose events come as JSON, one a line. Giving the last one up interrupts the code.
#include "apps/up/session_code.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "agents/front/front.h"
#include "agents/front/host_address.h"
#include "agents/sessions/owner.h"
#include "apps/up/session_wire.h"
#include "base/steady_time.h"
#include "http/async_client.h"

namespace capstan::apps {
namespace {

constexpr std::size_t kKnownMax = 10'000;
constexpr std::size_t kLineBytesMax = 8u << 20;
constexpr std::size_t kAnswerBytesMax = 1u << 20;

struct Sandbox {
  std::string id, token;
  std::set<std::string> files = {};  // the ids of those that were put there
  std::int64_t used_ms = 0;  // steady
};

std::string key_of(const gateway::Caller& caller, const std::string& container) {
  return fmt::format("{}/{}", caller.project_number, container);
}

// Where `at` may be cut without cutting a character.
std::size_t boundary(std::string_view text, std::size_t at) {
  while (at > 0 && at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

}  // namespace

void CodeLogs::add(std::string_view text) {
  constexpr std::size_t kHalf = kLogsBytesMax / 2;
  if (head_.size() < kHalf && tail_.empty()) {
    const std::size_t taken = boundary(text, std::min(kHalf - head_.size(), text.size()));
    head_ += text.substr(0, taken);
    text.remove_prefix(taken);
  }
  tail_ += text;
  if (tail_.size() <= 2 * kHalf) return;
  const std::size_t gone = boundary(tail_, tail_.size() - kHalf);
  left_out_ += gone;
  tail_.erase(0, gone);
}

std::string CodeLogs::text() const {
  constexpr std::size_t kHalf = kLogsBytesMax / 2;
  const std::size_t more = tail_.size() > kHalf ? boundary(tail_, tail_.size() - kHalf) : 0;
  if (left_out_ + more == 0) return head_ + tail_;
  return fmt::format("{}\n[{} bytes left out]\n{}", head_, left_out_ + more, tail_.substr(more));
}

struct SessionCode::State {
  State(const std::filesystem::path& file, std::int64_t in_use) : address(file), wire(file), in_use_ms(in_use) {}
  const agents::HostAddress address;
  SessionWire wire;
  const std::int64_t in_use_ms;
  std::mutex mutex;
  std::map<std::string, Sandbox> known;  // by project and container
  // Of the loop:
  http::EventLoop* loop = nullptr;
  std::unique_ptr<http::AsyncClient> client;
  std::set<SessionRun*> runs;

  std::optional<Sandbox> use(const std::string& key) {
    const std::scoped_lock lock(mutex);
    const auto found = known.find(key);
    if (found == known.end()) return std::nullopt;
    found->second.used_ms = steady_now_ms();
    return found->second;
  }
  void note(const std::string& key, Sandbox sandbox) {
    const std::scoped_lock lock(mutex);
    if (known.size() >= kKnownMax) known.clear();  // find() brings back what is still there
    sandbox.used_ms = steady_now_ms();
    Sandbox& kept = known[key];
    if (kept.id == sandbox.id) sandbox.files.merge(kept.files);
    kept = std::move(sandbox);
  }
  // Of the keys that begin so, the one that was not used for longest, and not just now; it is forgotten.
  std::optional<Sandbox> take_idlest(const std::string& prefix, std::int64_t in_use_ms) {
    const std::scoped_lock lock(mutex);
    auto idlest = known.end();
    for (auto at = known.lower_bound(prefix); at != known.end() && at->first.starts_with(prefix); ++at) {
      if (idlest == known.end() || at->second.used_ms < idlest->second.used_ms) idlest = at;
    }
    if (idlest == known.end() || steady_now_ms() - idlest->second.used_ms < in_use_ms) return std::nullopt;
    Sandbox out = std::move(idlest->second);
    known.erase(idlest);
    return out;
  }
  void forget(const std::string& key) {
    const std::scoped_lock lock(mutex);
    known.erase(key);
  }
};

class SessionCode::SessionRun final : public CodeRunner::Run, public http::CallSink {
 public:
  SessionRun(std::shared_ptr<State> state, Work work, std::function<void(Result<Outcome>)> done)
      : state_(std::move(state)), work_(std::move(work)), done_(std::move(done)) {
    key_ = key_of(*work_.caller, work_.container);
    state_->runs.insert(this);
  }
  ~SessionRun() override { state_->runs.erase(this); }

  void begin() {
    auto host = state_->address.now();
    if (!host) return end_later(std::move(host.error()));
    host_ = std::move(*host);
    sandbox_ = state_->use(key_);
    sandbox_ ? prolong() : create();
  }
  void shut_down() { end(fail(Code::kUnavailable, "the server is shutting down")); }

  void on_head(http::Response& head) override { status_ = head.status; }
  void on_piece(std::string_view piece) override {
    if (step_ != Step::kExecute || status_ != 200) {
      answer_ += piece.substr(0, kAnswerBytesMax - answer_.size());
      return;
    }
    for (std::size_t end; (end = piece.find('\n')) != std::string_view::npos; piece.remove_prefix(end + 1)) {
      line_ += piece.substr(0, end);
      take_line();
      line_.clear();
    }
    if (line_.size() < kLineBytesMax) line_ += piece;  // what is longer is no JSON then, and left out
  }
  void on_end(Result<void> result) override {
    if (!result)
      return end(fail(Code::kUnavailable, "the sandboxes' host does not answer: {}", result.error().message));
    const bool good = status_ >= 200 && status_ < 300;
    if (step_ == Step::kCreate && good) return created();
    if (step_ == Step::kCreate) return status_ == 429 && make_room() ? void() : refuse();
    if (step_ == Step::kEndOther) return create();
    if (good && step_ == Step::kPut) return put();
    if (good) return step_ == Step::kProlong ? put_next() : end(Outcome{logs_.text(), !ended_, std::move(images_)});
    // The session that we know is gone.
    if ((status_ != 404 && status_ != 502) || renewed_) return refuse();
    state_->forget(key_);
    renewed_ = true;
    create();
  }

 private:
  enum class Step { kCreate, kEndOther, kProlong, kPut, kExecute };

  void send(Step step, std::string method, std::string target, const Json& body, int silence_ms) {
    body_ = body.dump();
    send(step, std::move(method), std::move(target), "application/json", body_, silence_ms);
  }
  // `body` outlives the call.
  void send(Step step, std::string method, std::string target, std::string type, std::string_view body, int silence_ms) {
    step_ = step;
    status_ = 0;
    answer_.clear();
    request_ = {.method = std::move(method), .target = std::move(target), .headers = {{"content-type", std::move(type)}}};
    request_.headers.set(agents::kHostTokenHeader, host_.token);
    request_.headers.set(agents::kOwnerHeader, owner_header(*work_.caller));
    if (step == Step::kPut || step == Step::kExecute) {
      request_.headers.set("e2b-sandbox-id", sandbox_->id);
      request_.headers.set("x-access-token", sandbox_->token);
    }
    call_ = state_->client->start(host_.url, request_, body, {.silence_timeout_ms = silence_ms}, *this);
  }
  void create() {
    send(Step::kCreate, "POST", "/v2/sandboxes",
         Json::object({{"templateID", "base"},
                       {"timeout", kIdleS},
                       {"metadata", Json::object({{std::string(kContainerWord), work_.container}})}}),
         kSessionHostTimeoutMs);
  }
  // Where the project may have no more sessions, its idlest container ends.
  bool make_room() {
    if (std::exchange(made_room_, true)) return false;
    const auto idlest = state_->take_idlest(key_of(*work_.caller, ""), state_->in_use_ms);
    if (!idlest) return false;
    send(Step::kEndOther, "DELETE", "/sandboxes/" + idlest->id, Json::object(), kSessionHostTimeoutMs);
    return true;
  }
  void created() {
    const auto json = Json::parse(answer_);
    if (!json) return end(fail(Code::kUnavailable, "the sandboxes' host answered no JSON"));
    sandbox_ = Sandbox{json->get_string("sandboxID").value_or(""), json->get_string("envdAccessToken").value_or("")};
    state_->note(key_, *sandbox_);
    if (renewed_) logs_.add("[a new container: earlier variables and files are gone]\n");
    put_next();
  }
  void prolong() {
    send(Step::kProlong, "POST", fmt::format("/sandboxes/{}/timeout", sandbox_->id), Json::object({{"timeout", kIdleS}}),
         kSessionHostTimeoutMs);
  }
  // The first file that the container does not have yet.
  auto lacking() const {
    return std::ranges::find_if(work_.files, [this](const File& file) { return !sandbox_->files.contains(file.id); });
  }
  // One file after the other, then the code.
  void put_next() {
    const auto file = lacking();
    if (file == work_.files.end()) return execute();
    send(Step::kPut, "POST", "/files?path=" + http::percent_encode(file->name), "application/octet-stream",
         file->content->bytes(), kSessionHostTimeoutMs);
  }
  void put() {
    sandbox_->files.insert(lacking()->id);
    state_->note(key_, *sandbox_);
    put_next();
  }
  void execute() {
    timer_ = std::make_unique<http::EventLoop::Timer>(*state_->loop, [alive = std::weak_ptr(alive_), this] {
      state_->loop->post([alive, this] {  // not from within the timer, which goes with the run
        if (!alive.expired()) time_is_over();
      });
    });
    timer_->arm(work_.time_ms);
    send(Step::kExecute, "POST", "/execute", Json::object({{"code", work_.code}}),
         static_cast<int>(work_.time_ms) + kSessionHostTimeoutMs);
  }

  void take_line() {
    const auto event = Json::parse(line_);
    if (!event || !event->is_object()) return;
    const std::string type = event->get_string("type").value_or("");
    if (type == "stdout" || type == "stderr") logs_.add(event->get_string("text").value_or(""));
    if (type == "result") take_result(*event);
    if (type != "error") return;
    logs_.add(event->get_string("traceback").value_or(""));
    ended_ = ended_ || event->get_string("name") == "KernelDied";
  }
  void take_result(const Json& event) {
    logs_.add(event.get_string("text").value_or("") + "\n");
    for (const char* kind : {"png", "jpeg"}) {
      const auto bytes = event.get_string(kind);
      if (!bytes) continue;
      std::string url = fmt::format("data:image/{};base64,{}", kind, *bytes);
      std::erase(url, '\n');
      image_bytes_ += url.size();
      if (image_bytes_ <= gateway::openai::kImageBytesMax)
        images_.push_back(std::move(url));
      else
        logs_.add("[an image left out: too many bytes of them]\n");
    }
  }
  void time_is_over() {
    call_.reset();  // interrupts it
    logs_.add(fmt::format("\n[interrupted: it ran longer than {} s]", work_.time_ms / 1000));
    end(Outcome{logs_.text(), false, std::move(images_)});
  }
  void refuse() { end(std::unexpected(session_error(status_, answer_))); }
  void end_later(Error error) {
    state_->loop->post([alive = std::weak_ptr(alive_), this, error = std::move(error)] {
      if (!alive.expired()) end(std::unexpected(error));
    });
  }
  // The last of it: `done` destroys this.
  void end(Result<Outcome> outcome) {
    const auto done = std::move(done_);
    call_.reset();
    timer_.reset();
    done(std::move(outcome));
  }

  const std::shared_ptr<State> state_;  // shared with the runner
  const Work work_;
  std::function<void(Result<Outcome>)> done_;
  const std::shared_ptr<int> alive_ = std::make_shared<int>();  // shared with nobody: tells tasks on the loop
  std::string key_;
  agents::HostAddress::Host host_;
  std::optional<Sandbox> sandbox_;
  http::Request request_;
  std::string body_, answer_, line_;
  CodeLogs logs_;
  std::vector<std::string> images_;  // as data URLs
  std::size_t image_bytes_ = 0;
  Step step_ = Step::kCreate;
  int status_ = 0;
  bool renewed_ = false, made_room_ = false, ended_ = false;
  std::unique_ptr<http::EventLoop::Timer> timer_;
  std::unique_ptr<http::AsyncCall> call_;
};

SessionCode::SessionCode(std::filesystem::path address, std::int64_t in_use_ms)
    : state_(std::make_shared<State>(std::move(address), in_use_ms)) {}
SessionCode::~SessionCode() = default;

void SessionCode::mount(http::Router& router) {
  router.add_loop_hooks(
      [state = state_](http::EventLoop& loop) {
        state->loop = &loop;
        state->client = std::make_unique<http::AsyncClient>(loop);
      },
      [state = state_] {
        const auto all = state->runs;
        for (SessionRun* run : all) {
          if (state->runs.contains(run)) run->shut_down();
        }
        state->client.reset();
      });
}

Result<void> SessionCode::check() {
  CAPSTAN_TRY(const auto host, state_->address.now());
  if (!host.refusal.empty()) return fail(Code::kUnsupported, "{}", host.refusal);
  return {};
}

Result<void> SessionCode::find(const gateway::Caller& caller, const std::string& container) {
  CAPSTAN_TRY(const SessionWire::Sandbox found, state_->wire.sandbox_of(caller, container));
  state_->note(key_of(caller, container), {found.id, found.token});
  return {};
}

std::unique_ptr<gateway::openai::CodeRunner::Run> SessionCode::run(Work work, std::function<void(Result<Outcome>)> done) {
  auto run = std::make_unique<SessionRun>(state_, std::move(work), std::move(done));
  run->begin();
  return run;
}

}  // namespace capstan::apps

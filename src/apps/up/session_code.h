// The containers of the Responses API's code_interpreter: sandbox sessions of the session host, one for each.
//
//   SessionCode code(data.path() / kSessionsAddress);
//   code.mount(router);          // for its event loop, no routes
//   OpenAiApi::make(gateway, database, {…, .code = &code});
//
// A session is made with the container's first code, knows the container's id by its metadata (so that nothing needs to
// be remembered here), belongs to the caller's project, and ends kIdleS after the last code. Its usage is metered as
// that of any session. Where the project may have no more, the container that was idle for longest, and for kInUseMs at least,
// gives way to a new one. Requests go to the host over loopback, in E2B's wire API. If a container's session is gone
// when its code comes, another one is made, and the output says so.
// Threads: as CodeRunner's. Bounds: kLogsBytesMax of output, its middle is left out.
#pragma once

#include <filesystem>
#include <memory>

#include "gateway/openai/code_runner.h"
#include "gateway/openai/container_host.h"
#include "http/server.h"

namespace capstan::apps {

inline constexpr std::int64_t kIdleS = gateway::openai::kContainerIdleMinutes * 60;
inline constexpr std::int64_t kInUseMs = gateway::openai::kCodeTimeMs + 30'000;  // since its last code began
inline constexpr std::size_t kLogsBytesMax = 32u << 10;

// Output as it comes; of more than kLogsBytesMax the beginning and the end are kept. Pure.
class CodeLogs {
 public:
  void add(std::string_view text);
  std::string text() const;

 private:
  std::string head_, tail_;
  std::size_t left_out_ = 0;
};

class SessionCode final : public gateway::openai::CodeRunner {
 public:
  explicit SessionCode(std::filesystem::path address, std::int64_t in_use_ms = kInUseMs);
  ~SessionCode() override;
  void mount(http::Router& router);

  Result<void> check() override;
  Result<void> find(const gateway::Caller& caller, const std::string& container) override;
  std::unique_ptr<Run> run(Work work, std::function<void(Result<Outcome>)> done) override;

 private:
  struct State;
  class SessionRun;
  std::shared_ptr<State> state_;  // shared with the loop's hooks
};

}  // namespace capstan::apps

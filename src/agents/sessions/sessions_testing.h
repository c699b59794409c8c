// For tests of sessions: a manager with a real launcher (skipped where the host cannot enforce sandboxes), an event loop of the
// test's own, and a directory that goes with it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "agents/sessions/interpreter.h"
#include "agents/sessions/session_manager.h"
#include "base/file.h"

namespace capstan::agents {

// Waits for a process's end and keeps what it wrote.
class Kept final : public ProcessListener {
 public:
  void on_output(Channel channel, std::string_view bytes) override {
    const std::lock_guard lock(mutex_);
    (channel == Channel::kErr ? err : out) += bytes;
  }
  void on_end(const Result<sandbox::CommandResult>& result) override {
    const std::lock_guard lock(mutex_);
    ended_ = result;
    changed_.notify_all();
  }
  Result<sandbox::CommandResult> wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_.has_value(); });
    return *ended_;
  }
  std::string out, err;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Result<sandbox::CommandResult>> ended_;
};

// The events of a cell, joined.
class Lines final : public CodeSink {
 public:
  void on_line(std::string_view json) override {
    const std::lock_guard lock(mutex);
    lines += json;
  }
  void on_done() override { done = true; }
  std::mutex mutex;
  std::string lines;
  std::atomic<bool> done{false};
};

class Sessions : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() / ("capstan-sessions-" + random_hex(6));
    loop_thread_ = std::thread([this] { loop_.run(); });
    open({});
    if (const auto able = manager_->check(); !able) GTEST_SKIP() << able.error().message;
  }
  void TearDown() override {
    manager_.reset();
    loop_.stop();
    loop_thread_.join();
    std::filesystem::remove_all(directory_);
  }
  void open(ManagerLimits limits) {
    manager_.reset();
    const auto resolve = [](const std::string& name) -> std::vector<Address> {
      if (name.ends_with(".test")) return {*Address::parse("127.0.0.1")};
      return {};
    };
    manager_ = std::make_unique<SessionManager>(
        ManagerOptions{.instance = instance(), .directory = directory_, .resolve = resolve, .limits = limits});
    manager_->run_on(loop_);
  }
  // Of this program: another beside it would take its cgroups away when it ends.
  static std::string instance() { return fmt::format("sessions-test-{}", ::getpid()); }
  SessionPtr make(SessionTerms terms = {}) {
    auto made = manager_->create(std::move(terms));
    if (!made) ADD_FAILURE() << made.error().message;
    return made ? *made : nullptr;
  }
  std::string shell(const SessionPtr& session, const std::string& script, int exit_code = 0) {
    const auto kept = std::make_shared<Kept>();
    const auto process = session->start({.argv = {"/bin/sh", "-c", script}}, kept);
    if (!process) return process.error().message;
    const auto result = kept->wait();
    EXPECT_TRUE(result && result->exit_code == exit_code) << script << ": " << kept->err;
    return kept->out;
  }
  std::string run_code(const SessionPtr& session, const std::string& code) {
    const auto lines = std::make_shared<Lines>();
    const auto begun = session->interpreter().execute({.code = code}, lines);
    EXPECT_TRUE(begun) << begun.error().message;
    until("the cell ended", [&] { return lines->done.load(); });
    const std::lock_guard lock(lines->mutex);
    return lines->lines;
  }
  void template_file(const std::string& name, const std::string& json) {
    std::filesystem::create_directories(directory_ / "templates");
    ASSERT_TRUE(write_file_atomic(directory_ / "templates" / (name + ".json"), json));
  }
  void until(const char* what, const std::function<bool()>& check) {
    for (int i = 0; i < 500; ++i) {
      if (check()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ADD_FAILURE() << "waited in vain until " << what;
  }

  std::filesystem::path directory_;
  http::EventLoop loop_;
  std::thread loop_thread_;
  std::unique_ptr<SessionManager> manager_;
};

}  // namespace capstan::agents

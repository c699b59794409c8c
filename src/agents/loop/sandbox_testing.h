// A launcher of sandboxes for this folder's tests, or why this host has none.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/file.h"
#include "sandbox/cgroup.h"
#include "sandbox/launcher.h"

namespace capstan::agents::loop {

class SandboxTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    options_.instance = "test-" + random_hex(4);
    const auto capabilities = sandbox::check_host(options_);
    ASSERT_TRUE(capabilities) << capabilities.error().message;
    if (const auto good = sandbox::require(*capabilities, {}); !good) {
      why_not_ = good.error().message;
      return;
    }
    auto started = sandbox::Launcher::start(options_);
    ASSERT_TRUE(started) << started.error().message;
    launcher_ = std::move(*started);
  }
  static void TearDownTestSuite() {
    launcher_.reset();
    sandbox::Cgroups::detect("sandbox-" + options_.instance).remove_instance();
  }
  void SetUp() override {
    if (launcher_ == nullptr) GTEST_SKIP() << why_not_;
  }

  static inline sandbox::LauncherOptions options_;
  static inline std::unique_ptr<sandbox::Launcher> launcher_;
  static inline std::string why_not_;
};

}  // namespace capstan::agents::loop

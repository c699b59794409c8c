// For tests: a launcher of sandboxes that lives as long as a suite. Where this host cannot enforce what
// sandboxes promise, the suite's tests skip and say what is missing. The launcher's program, capstan-sandbox,
// is the one beside the test's own.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/file.h"
#include "sandbox/launcher.h"

namespace capstan::sandbox {

class SandboxTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    options_.instance = "test-" + random_hex(4);
    const auto capabilities = check_host(options_);
    ASSERT_TRUE(capabilities) << capabilities.error().message;
    if (const auto good = require(*capabilities, {}); !good) {
      why_not_ = good.error().message;
      return;
    }
    auto started = Launcher::start(options_);
    ASSERT_TRUE(started) << started.error().message;
    launcher_ = std::move(*started);
  }
  static void TearDownTestSuite() { launcher_.reset(); }
  void SetUp() override {
    if (launcher_ == nullptr) GTEST_SKIP() << why_not_;
  }

  static inline LauncherOptions options_;
  static inline std::unique_ptr<Launcher> launcher_;
  static inline std::string why_not_;
};

}  // namespace capstan::sandbox

// CAPSTAN_TEST_ISA forces an instruction set on every test of this program; all are skipped where the machine lacks it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "engine/kernels/packed.h"

namespace capstan::engine {
namespace {

class ForcedIsa : public testing::Environment, public testing::EmptyTestEventListener {
 public:
  explicit ForcedIsa(std::string name) : name_(std::move(name)) {}
  void SetUp() override {
    if (const auto forced = use_isa(name_); !forced) GTEST_SKIP() << forced.error().message;
  }
  void OnTestStart(const testing::TestInfo&) override { (void)use_isa(name_); }

 private:
  std::string name_;
};

const bool kForced = [] {
  const char* name = std::getenv("CAPSTAN_TEST_ISA");
  if (name == nullptr) return false;
  testing::AddGlobalTestEnvironment(new ForcedIsa(name));
  testing::UnitTest::GetInstance()->listeners().Append(new ForcedIsa(name));  // gtest owns both
  return true;
}();

TEST(ForcedIsa, IsTheOneInUse) {
  const char* name = std::getenv("CAPSTAN_TEST_ISA");
  EXPECT_EQ(isa_name(current_isa()), kForced ? name : isa_name(best_isa()));
}

}  // namespace
}  // namespace capstan::engine

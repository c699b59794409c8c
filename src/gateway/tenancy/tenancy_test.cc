// Goal: keys, limits, queue and metering as the gateway's pipeline sees them, and Show 5's budget: thousands of
// requests at once against a limit, also when the process is killed meanwhile: never over, and what is left is
// really admitted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <mutex>

#include "base/file.h"
#include "base/prng.h"
#include "gateway/tenancy/callers.h"
#include "gateway/tenancy/refusals.h"
#include "gateway/tenancy/tenant_admission.h"

namespace capstan::gateway {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kNow = 1'764'200'000'000;
const store::Change kBy{"test", kNow};

// Everything behind the two interfaces, on one directory.
struct House {
  std::unique_ptr<store::Database> database;
  std::unique_ptr<store::Tenants> tenants;
  std::unique_ptr<store::Catalogue> catalogue;
  std::unique_ptr<Meter> meter;
  std::unique_ptr<Callers> callers;
  std::unique_ptr<TenantAdmission> admission;

  explicit House(const std::filesystem::path& directory, int replicas = 0) {
    const store::Tables* list[] = {&store::kTenantTables, &store::kCatalogueTables, &store::kUsageTables};
    database = store::open_sqlite((directory / "store.sqlite").string(), list, {.fsync = false}).value();
    tenants = store::Tenants::open(*database, directory / "secrets.key").value();
    catalogue = store::Catalogue::open(*database).value();
    meter = Meter::open(*database, directory / "usage.ledger").value();
    callers = std::make_unique<Callers>(*tenants);
    admission = std::make_unique<TenantAdmission>(
        *database, *tenants, *catalogue, *meter,
        [replicas] { return std::map<std::string, int, std::less<>>{{"abacus", replicas}}; },
        AdmissionOptions{.requests_per_replica = 2, .queue = {.newcomers = 0, .waiting_max = 4}, .now_ms = [] { return kNow; }});
  }
};

class TenancyTest : public testing::Test {
 protected:
  TenancyTest() : directory_(std::filesystem::temp_directory_path() / ("capstan-tenancy-" + random_hex(6))) {
    std::filesystem::create_directories(directory_);
  }
  ~TenancyTest() override {
    house_.reset();
    std::filesystem::remove_all(directory_);
  }
  void open(int replicas = 0) {
    house_.reset();
    house_ = std::make_unique<House>(directory_, replicas);
  }
  store::NewKey add_key(store::KeyRequest request) {
    if (!house_->tenants->find_organisation("acme")) {
      EXPECT_TRUE(house_->tenants->add_organisation(kBy, "acme").has_value());
      EXPECT_TRUE(house_->tenants->add_project(kBy, "acme/web", 1).has_value());
    }
    request.project = "acme/web";
    return house_->tenants->add_key(kBy, request).value();
  }
  void set_limit(store::LimitRequest request) {
    ASSERT_TRUE(house_->tenants->set_limit(kBy, request).has_value());
    house_->admission->refresh();
  }
  CallerPtr caller(const store::NewKey& key) { return house_->callers->bearer(key.token, kNow).value(); }

  static Admission::Verdict at_once(TenantAdmission& admission, const CallerPtr& who, const CostEstimate& cost) {
    auto decision = admission.admit(who, cost, [](Admission::Verdict) { ADD_FAILURE() << "was to be answered at once"; });
    return std::get<Admission::Verdict>(std::move(decision));
  }
  Admission::Verdict admit(const CallerPtr& who, const CostEstimate& cost) {
    return at_once(*house_->admission, who, cost);
  }
  static Settlement used(std::int64_t prompt, std::int64_t completion, int status = 200) {
    return {.usage = {.prompt_tokens = prompt, .completion_tokens = completion, .exact = true},
            .status = status,
            .model = "abacus",
            .path = "/v1/chat/completions",
            .request_id = "req_1",
            .replica = "abacus-0",
            .total_ms = 12};
  }
  store::UsageSum sum() {
    EXPECT_TRUE(house_->meter->flush().has_value());
    return store::usage_since(*house_->database, {}, 0, INT64_MAX).value();
  }

  std::filesystem::path directory_;
  std::unique_ptr<House> house_;
};

const CostEstimate kSmall{.model = "abacus", .prompt_tokens = 10, .completion_tokens_max = 20};

TEST_F(TenancyTest, WithoutRequiredKeysStrangersAreAnonymousAndAWrongKeyIsRefused) {
  open();
  const store::NewKey key = add_key({.name = "ci", .tier = "flex"});
  const auto ask = [&](bool require, std::string authorization, std::string path = "/v1/chat/completions") {
    const BearerOptions options{.require_keys = require, .control_token = "control", .now_ms = [] { return kNow; }};
    BearerAuthenticator authenticator(*house_->callers, options);
    http::Request request{.headers = {{"authorization", std::move(authorization)}}, .path = std::move(path)};
    if (request.headers.get("authorization").empty()) request.headers = {};
    return authenticator.authenticate(request);
  };
  EXPECT_EQ((*ask(false, ""))->key_number, 0);
  EXPECT_EQ((*ask(false, "Bearer unused"))->key_number, 0);
  EXPECT_EQ((*ask(true, "Bearer control"))->key_number, 0);
  const auto known = ask(false, "bearer " + key.token);
  ASSERT_TRUE(known.has_value());
  EXPECT_EQ((*known)->key_id, "acme/web/ci");
  EXPECT_EQ((*known)->project, "web");
  EXPECT_EQ((*known)->tier, ServiceTier::kFlex);
  EXPECT_EQ(known->get(), ask(true, "Bearer " + key.token)->get());  // made once
  for (const bool require : {false, true}) {
    const auto wrong = ask(require, "Bearer sk-capstan-wrong");
    ASSERT_FALSE(wrong.has_value());
    EXPECT_EQ(wrong.error().status, 401);
    EXPECT_EQ(wrong.error().code, "invalid_api_key");
  }
  EXPECT_EQ(ask(true, "").error().status, 401);
  EXPECT_EQ(ask(true, "Bearer other").error().status, 401);
  const store::NewKey narrow = add_key({.name = "narrow", .scopes = {"inference"}});
  EXPECT_TRUE(ask(true, "Bearer " + narrow.token).has_value());
  EXPECT_EQ(ask(true, "Bearer " + narrow.token, "/openai/v1/files/file-1").error().status, 403);
  EXPECT_THAT(ask(true, "Bearer " + narrow.token, "/v1/models").error().message, HasSubstr("scope 'models'"));
  ASSERT_TRUE(house_->tenants->revoke_key(kBy, "acme/web/ci").has_value());
  EXPECT_THAT(ask(false, "Bearer " + key.token).error().message, HasSubstr("revoked"));
}

TEST_F(TenancyTest, AnAccessKeyGivesItsSecretAndTheSameCallerAsItsBearerKey) {
  open();
  const store::NewKey key = add_key({.name = "aws", .signing = true});
  const auto signer = house_->callers->signer(key.key->access_key_id, kNow);
  ASSERT_TRUE(signer.has_value());
  EXPECT_EQ(signer->secret, key.secret_access_key);
  EXPECT_EQ(signer->caller, caller(key));
  EXPECT_EQ(house_->callers->signer("CAPSNOTTHERE", kNow).error().status, 403);
}

TEST_F(TenancyTest, AKeyUsesOnlyItsModelsAndScopes) {
  open();
  const auto other = caller(add_key({.name = "other", .models = {"gpt-oss-20b"}}));
  const auto refused = admit(other, kSmall);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().status, 403);
  EXPECT_THAT(refused.error().message, HasSubstr("may use gpt-oss-20b"));
  const auto files = caller(add_key({.name = "files", .scopes = {"files"}}));
  EXPECT_THAT(admit(files, kSmall).error().message, HasSubstr("scope 'inference'"));
}

TEST_F(TenancyTest, EveryRequestIsARowWithItsCostAndOneThatNoReplicaSawIsNot) {
  open();
  ASSERT_TRUE(house_->catalogue->put(kBy, {.name = "abacus", .price = {1'000'000, 100'000, 4'000'000}}).has_value());
  const auto who = caller(add_key({.name = "ci"}));
  auto one = admit(who, kSmall);
  ASSERT_TRUE(one.has_value());
  Settlement end = used(10, 7, 499);  // the client left
  end.usage.cached_tokens = 4;
  end.usage.reasoning_tokens = 3;
  (*one)->settle(end);
  auto two = admit(who, kSmall);
  Settlement never = used(10, 0, 503);
  never.replica = {};
  (*two)->settle(never);
  auto three = admit(who, kSmall);
  three->reset();
  const auto total = sum();
  EXPECT_EQ(total.requests, 1);
  const auto rows = store::usage_records(*house_->database, {}, 10).value();
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].key, who->key_number);
  EXPECT_EQ(rows[0].status, 499);
  EXPECT_EQ(rows[0].cached_tokens, 4);
  EXPECT_EQ(rows[0].reasoning_tokens, 3);
  EXPECT_EQ(rows[0].nano_dollars, 6 * 1000 + 4 * 100 + 7 * 4000);
  EXPECT_STREQ(rows[0].path.data(), "/v1/chat/completions");
  EXPECT_EQ(house_->catalogue->name_of(rows[0].model), "abacus");
}

TEST_F(TenancyTest, ALimitRefusesInOpenAisTermsAndItsHeadersSayWhatIsLeft) {
  open();
  const auto who = caller(add_key({.name = "ci"}));
  set_limit({.subject = "acme/web", .window = "minute", .unit = "requests", .amount = 2});
  set_limit({.subject = "acme", .window = "day", .unit = "tokens", .amount = 100});
  auto one = admit(who, kSmall);
  ASSERT_TRUE(one.has_value());
  http::Headers headers;
  (*one)->add_headers(headers);
  EXPECT_EQ(headers.get("x-ratelimit-limit-requests"), "2");
  EXPECT_EQ(headers.get("x-ratelimit-remaining-requests"), "1");
  EXPECT_EQ(headers.get("x-ratelimit-remaining-tokens"), "70");
  EXPECT_EQ(headers.get("x-ratelimit-reset-requests"), "40s");
  (*one)->settle(used(10, 5));
  const auto large = admit(who, {.model = "abacus", .prompt_tokens = 10, .completion_tokens_max = 80});
  ASSERT_FALSE(large.has_value());
  EXPECT_EQ(large.error().status, 429);
  EXPECT_EQ(large.error().code, "rate_limit_exceeded");
  EXPECT_EQ(large.error().type, "tokens");
  EXPECT_THAT(large.error().message, HasSubstr("limit of acme: tokens 100 per day; used 15"));
  auto two = admit(who, {.model = "abacus", .prompt_tokens = 10, .completion_tokens_max = 75});
  ASSERT_TRUE(two.has_value());  // exactly what is left
  const auto third = admit(who, kSmall);
  EXPECT_EQ(third.error().type, "requests");
  EXPECT_EQ(third.error().retry_after_ms, 1000);  // one is still under way, it may have been for nothing
  two->reset();
  EXPECT_TRUE(admit(who, kSmall).has_value());
}

TEST_F(TenancyTest, ABudgetInMoneyThatIsUsedUpIsInsufficientQuotaAndFreeModelsGoOn) {
  open();
  ASSERT_TRUE(house_->catalogue->put(kBy, {.name = "paid", .price = {0, 0, 1'000'000}}).has_value());
  const auto who = caller(add_key({.name = "ci"}));
  set_limit({.subject = "acme/web/ci", .window = "month", .unit = "nano_dollars", .amount = 50'000});
  const CostEstimate cost{.model = "paid", .prompt_tokens = 10, .completion_tokens_max = 50};
  auto one = admit(who, cost);
  ASSERT_TRUE(one.has_value());
  (*one)->settle(used(10, 50));
  const auto refused = admit(who, cost);
  EXPECT_EQ(refused.error().code, "insufficient_quota");
  EXPECT_THAT(refused.error().message, HasSubstr("spending $0.00005 per month"));
  EXPECT_TRUE(admit(who, kSmall).has_value());
}

TEST_F(TenancyTest, ALimitThatIsMadeLaterBeginsWithWhatWasUsedAndOneIsKeptOverARestart) {
  open();
  const auto key = add_key({.name = "ci"});
  auto one = admit(caller(key), kSmall);
  (*one)->settle(used(10, 5));
  set_limit({.subject = "acme", .window = "day", .unit = "tokens", .amount = 100});
  EXPECT_EQ(house_->admission->state_of_limit(1).first, 15);
  auto two = admit(caller(key), kSmall);
  (*two)->settle(used(10, 20));
  open();
  EXPECT_EQ(house_->admission->state_of_limit(1), (std::pair<std::int64_t, std::int64_t>{45, 0}));
}

TEST_F(TenancyTest, AFullReplicaLetsRequestsWaitInTurnAndWhoLeavesIsForgotten) {
  open(1);  // two at once
  const auto who = caller(add_key({.name = "ci"}));
  auto one = admit(who, kSmall);
  auto two = admit(who, kSmall);
  ASSERT_TRUE(one.has_value() && two.has_value());
  std::vector<int> started;
  std::vector<std::unique_ptr<Permit>> permits;
  std::vector<std::unique_ptr<Waiting>> waiting;
  const auto enter = [&](int number) {
    auto decision = house_->admission->admit(who, kSmall, [&, number](Admission::Verdict verdict) {
      started.push_back(number);
      permits.push_back(std::move(*verdict));
    });
    auto* place = std::get_if<std::unique_ptr<Waiting>>(&decision);
    if (place == nullptr) return false;
    waiting.push_back(std::move(*place));
    return true;
  };
  EXPECT_TRUE(enter(3));
  EXPECT_TRUE(enter(4));
  EXPECT_FALSE(enter(5));  // a flow may hold half of the places
  waiting[0].reset();      // the client of 3 left
  EXPECT_TRUE(enter(6));
  EXPECT_THAT(started, testing::IsEmpty());
  (*one)->settle(used(10, 5));
  EXPECT_THAT(started, testing::ElementsAre(4));
  two->reset();
  EXPECT_THAT(started, testing::ElementsAre(4, 6));
  for (auto& permit : permits) permit->settle(used(1, 1));
  EXPECT_EQ(sum().requests, 3);
}

TEST_F(TenancyTest, TenThousandRequestsAtOnceAreNeverOverAndWhatIsLeftIsAdmitted) {
  open();
  constexpr std::int64_t kTokens = 60'000;
  constexpr int kThreads = 16, kEach = 625;
  const auto who = caller(add_key({.name = "ci"}));
  set_limit({.subject = "acme/web", .window = "month", .unit = "tokens", .amount = kTokens});
  std::atomic<std::int64_t> tokens = 0;
  std::atomic<int> refused = 0, over = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Prng prng(static_cast<std::uint64_t>(t));
      std::vector<std::unique_ptr<Permit>> open;
      for (int i = 0; i < kEach; ++i) {
        auto verdict = at_once(*house_->admission, who, kSmall);
        if (verdict) {
          open.push_back(std::move(*verdict));
        } else {
          ++refused;
        }
        const auto [settled, held] = house_->admission->state_of_limit(1);
        over += settled + held > kTokens ? 1 : 0;
        if (open.size() < 8 && i + 1 < kEach) continue;
        for (auto& permit : open) {
          if (prng.below(10) == 0) continue;  // destroyed: never used
          const std::int64_t completion = prng.between(0, 20);
          tokens += 10 + completion;
          permit->settle(used(10, completion));
        }
        open.clear();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(over, 0);
  EXPECT_LE(tokens, kTokens);
  EXPECT_GT(refused, 0);
  EXPECT_EQ(house_->admission->state_of_limit(1), (std::pair<std::int64_t, std::int64_t>{tokens, 0}));
  EXPECT_EQ(sum().input_tokens + sum().output_tokens, tokens);
  const std::int64_t left = kTokens - tokens;
  EXPECT_FALSE(admit(who, {.model = "abacus", .prompt_tokens = left + 1}).has_value());
  EXPECT_TRUE(admit(who, {.model = "abacus", .prompt_tokens = left}).has_value());
  std::printf("10000 requests, %d refused, %lld of %lld tokens used, 0 held\n", refused.load(),
              static_cast<long long>(tokens), static_cast<long long>(kTokens));
}

// In the child: 8 threads against the limit until killed; tells each settlement's tokens after it.
[[noreturn]] void spend_until_killed(const std::filesystem::path& directory, const std::string& token, int pipe) {
  House house(directory);
  const CallerPtr who = house.callers->bearer(token, kNow).value();
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      Prng prng(t);
      while (true) {
        auto decision = house.admission->admit(who, kSmall, {});
        auto& verdict = std::get<Admission::Verdict>(decision);
        if (!verdict) continue;
        const std::int64_t completion = prng.between(1, 20);
        (*verdict)->progress(completion);
        (*verdict)->settle({.usage = {.prompt_tokens = 10, .completion_tokens = completion, .exact = true},
                            .status = 200,
                            .replica = "r"});
        const std::int64_t told = 10 + completion;
        if (::write(pipe, &told, sizeof told) != sizeof told) ::_exit(1);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  ::_exit(0);
}

TEST_F(TenancyTest, ABudgetHoldsAcrossKillsOfTheProcessAndNothingOfItIsLost) {
  constexpr std::int64_t kTokens = 300'000;
  open();
  const store::NewKey key = add_key({.name = "ci"});
  set_limit({.subject = "acme/web", .window = "month", .unit = "tokens", .amount = kTokens});
  house_.reset();
  std::int64_t told = 0, one = 0;
  int rounds = 0;
  for (; rounds < 4; ++rounds) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(ends[0]);
      spend_until_killed(directory_, key.token, ends[1]);
    }
    ::close(ends[1]);
    // Silence means that the budget is used up.
    pollfd readable{ends[0], POLLIN, 0};
    for (int i = 0; i < 3'000 && ::poll(&readable, 1, 2'000) == 1 && ::read(ends[0], &one, sizeof one) == sizeof one; ++i)
      told += one;
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(ends[0], &one, sizeof one) == sizeof one) told += one;
    ::close(ends[0]);
  }
  open();
  const auto [settled, held] = house_->admission->state_of_limit(1);
  EXPECT_GE(settled, told);                       // nothing that was settled is lost
  EXPECT_LE(settled, told + rounds * 8 * 30);     // and only what was under way came on top
  EXPECT_LE(settled, kTokens);                    // never over
  EXPECT_EQ(held, 0);                             // no phantom of a request that is gone
  const auto total = sum();
  EXPECT_EQ(total.input_tokens + total.output_tokens, settled);
  const auto who = caller(key);
  EXPECT_FALSE(admit(who, {.model = "abacus", .prompt_tokens = kTokens - settled + 1}).has_value());
  EXPECT_TRUE(admit(who, {.model = "abacus", .prompt_tokens = kTokens - settled}).has_value());
  std::printf("%d kills: %lld tokens told, %lld counted of %lld, %lld requests\n", rounds, static_cast<long long>(told),
              static_cast<long long>(settled), static_cast<long long>(kTokens), static_cast<long long>(total.requests));
}

TEST(Refusals, DurationsAndDollarsAreWrittenAsPeopleDo) {
  EXPECT_EQ(format_reset(120), "120ms");
  EXPECT_EQ(format_reset(1'001), "2s");
  EXPECT_EQ(format_reset(360'000), "6m0s");
  EXPECT_EQ(format_reset(3'723'000), "1h2m3s");
  EXPECT_EQ(format_dollars(12'500'000'000), "12.50");
  EXPECT_EQ(format_dollars(1), "0.000000001");
}

}  // namespace
}  // namespace capstan::gateway

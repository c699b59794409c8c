// Goal: tenants, keys and limits are there again after a restart, secrets are nowhere in the file, and every
// refusal names what is wrong.
#include "store/tenants.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "store/secret_box.h"

namespace capstan::store {
namespace {

using testing::HasSubstr;

class TenantsTest : public testing::Test {
 protected:
  TenantsTest() : directory_(std::filesystem::temp_directory_path() / ("capstan-tenants-" + random_hex(6))) {
    std::filesystem::create_directories(directory_);
    open();
  }
  ~TenantsTest() override {
    tenants_.reset();
    database_.reset();
    std::filesystem::remove_all(directory_);
  }
  void open() {
    tenants_.reset();
    database_.reset();
    const Tables* list[] = {&kTenantTables};
    database_ = open_sqlite((directory_ / "store.sqlite").string(), list, {.fsync = false}).value();
    tenants_ = Tenants::open(*database_, directory_ / "secrets.key").value();
  }
  NewKey add_key(KeyRequest request) {
    if (!tenants_->find_organisation("acme")) {
      EXPECT_TRUE(tenants_->add_organisation(by_, "acme").has_value());
      EXPECT_TRUE(tenants_->add_project(by_, "acme/web", 3).has_value());
    }
    auto made = tenants_->add_key(by_, request);
    EXPECT_TRUE(made.has_value()) << made.error().message;
    return *made;
  }
  std::string bytes_of_all_files() const {
    std::string all;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      if (entry.path().filename() != "secrets.key") all += read_file(entry.path()).value_or("");
    }
    return all;
  }

  std::filesystem::path directory_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<Tenants> tenants_;
  const Change by_{"test", 1'000};
};

TEST_F(TenantsTest, AKeyIsFoundByItsTokenAlsoAfterARestartAndItsSecretsAreNotInTheFiles) {
  const NewKey made = add_key({.project = "acme/web",
                               .name = "ci",
                               .role = "admin",
                               .scopes = {"inference", "admin"},
                               .models = {"abacus", "gpt-oss-20b"},
                               .tier = "flex",
                               .signing = true});
  for (int round = 0; round < 2; ++round) {
    const auto found = tenants_->find_by_bearer(made.token, 2'000);
    ASSERT_TRUE(found.has_value()) << found.error().message;
    EXPECT_EQ((*found)->name, "ci");
    EXPECT_EQ((*found)->role, Role::kAdmin);
    EXPECT_EQ((*found)->tier, Tier::kFlex);
    EXPECT_EQ((*found)->weight, 3);
    EXPECT_TRUE((*found)->may(Scope::kAdmin));
    EXPECT_FALSE((*found)->may(Scope::kFiles));
    EXPECT_TRUE((*found)->may_use("abacus"));
    EXPECT_FALSE((*found)->may_use("other"));
    EXPECT_EQ(tenants_->key_path((*found)->id), "acme/web/ci");
    const auto signing = tenants_->find_signing_secret(made.key->access_key_id, 2'000);
    ASSERT_TRUE(signing.has_value()) << signing.error().message;
    EXPECT_EQ(signing->secret, made.secret_access_key);
    open();
  }
  tenants_.reset();
  database_.reset();
  const std::string all = bytes_of_all_files();
  EXPECT_THAT(all, HasSubstr(made.key->prefix));
  EXPECT_EQ(all.find(made.token), std::string::npos);
  EXPECT_EQ(all.find(made.secret_access_key), std::string::npos);
  const auto mode = std::filesystem::status(directory_ / "secrets.key").permissions();
  EXPECT_EQ(mode & std::filesystem::perms(077), std::filesystem::perms::none);
  open();
}

TEST_F(TenantsTest, AKeyThatIsUnknownExpiredOrRevokedIsDenied) {
  const NewKey made = add_key({.project = "acme/web", .name = "ci", .expires_ms = 5'000, .signing = true});
  const auto why = [&](std::string_view token, std::int64_t now_ms) {
    const auto found = tenants_->find_by_bearer(token, now_ms);
    return found ? std::string("ok") : found.error().message;
  };
  EXPECT_EQ(why(made.token, 4'999), "ok");
  EXPECT_THAT(why(made.token, 5'000), HasSubstr("expired"));
  EXPECT_THAT(why(made.token + "0", 4'999), HasSubstr("no such key"));
  EXPECT_THAT(why("", 4'999), HasSubstr("no such key"));
  ASSERT_TRUE(tenants_->revoke_key(by_, "acme/web/ci").has_value());
  for (int round = 0; round < 2; ++round) {
    EXPECT_THAT(why(made.token, 4'999), HasSubstr("revoked"));
    EXPECT_FALSE(tenants_->find_signing_secret(made.key->access_key_id, 4'999).has_value());
    EXPECT_TRUE(tenants_->keys().empty());
    open();
  }
  // The name is free again, and the new key is another one.
  const NewKey again = add_key({.project = "acme/web", .name = "ci"});
  EXPECT_NE(again.key->id, made.key->id);
  EXPECT_EQ(why(again.token, 4'999), "ok");
}

TEST_F(TenantsTest, RefusalsNameWhatIsWrong) {
  add_key({.project = "acme/web", .name = "ci"});
  const auto says = [](const auto& result, std::string_view text) {
    ASSERT_FALSE(result.has_value());
    EXPECT_THAT(result.error().message, HasSubstr(std::string(text)));
  };
  says(tenants_->add_organisation(by_, "Acme Inc"), "a-z 0-9 -, not 'Acme Inc'");
  says(tenants_->add_organisation(by_, "acme"), "'acme' already");
  says(tenants_->add_project(by_, "web", 1), "ORGANISATION/PROJECT, not 'web'");
  says(tenants_->add_project(by_, "acme/web", 1), "'acme/web' already");
  says(tenants_->add_project(by_, "acme/x", 0), "1 to 10000, not 0");
  says(tenants_->add_key(by_, {.project = "acme/web", .name = "ci"}), "'acme/web/ci' already");
  says(tenants_->add_key(by_, {.project = "acme/nil", .name = "ci"}), "no project 'nil'");
  says(tenants_->add_key(by_, {.project = "acme/web", .name = "x", .role = "king"}), "known are reader");
  says(tenants_->add_key(by_, {.project = "acme/web", .name = "x", .scopes = {"all"}}), "no scope 'all'");
  says(tenants_->add_key(by_, {.project = "acme/web", .name = "x", .scopes = {}}), "needs a scope");
  says(tenants_->add_key(by_, {.project = "acme/web", .name = "x", .expires_ms = 1}), "expired already");
  says(tenants_->remove_organisation(by_, "acme"), "has projects, such as 'web'");
  says(tenants_->remove_project(by_, "acme/web"), "has keys, such as 'ci'");
  says(tenants_->remove_project(by_, "default/default"), "always exists");
  says(tenants_->revoke_key(by_, "acme/web/other"), "no key 'other'");
  says(tenants_->set_limit(by_, {.subject = "nobody", .amount = 1}), "no organisation 'nobody'");
  says(tenants_->set_limit(by_, {.window = "year", .amount = 1}), "known are concurrent");
  says(tenants_->set_limit(by_, {.amount = -1}), "not -1");
  says(tenants_->set_limit(by_, {.window = "concurrent", .unit = "tokens", .amount = 1}), "only requests");
  says(tenants_->remove_limit(by_, 7), "no limit 7");
}

TEST_F(TenantsTest, ALimitIsReplacedNotDoubledAndItsVersionGrows) {
  add_key({.project = "acme/web", .name = "ci"});
  const auto before = tenants_->limits_version();
  ASSERT_TRUE(tenants_->set_limit(by_, {.subject = "acme/web/ci", .model = "abacus", .amount = 60}).has_value());
  ASSERT_TRUE(tenants_->set_limit(by_, {.subject = "acme/web/ci", .model = "abacus", .amount = 70}).has_value());
  ASSERT_TRUE(tenants_->set_limit(by_, {.subject = "acme", .unit = "nano_dollars", .amount = 5}).has_value());
  EXPECT_EQ(tenants_->limits_version(), before + 3);
  open();
  const auto limits = tenants_->limits();
  ASSERT_EQ(limits.size(), 2u);
  EXPECT_EQ(limits[0].amount, 70);
  EXPECT_EQ(tenants_->subject_path(limits[0].subject, limits[0].subject_id), "acme/web/ci");
  EXPECT_EQ(limits[1].unit, Unit::kNanoDollars);
  ASSERT_TRUE(tenants_->remove_limit(by_, limits[0].id).has_value());
  EXPECT_EQ(tenants_->limits().size(), 1u);
}

TEST_F(TenantsTest, EveryChangeIsInTheAuditLogWithWhoMadeItAndWithoutSecrets) {
  const NewKey made = add_key({.project = "acme/web", .name = "ci"});
  ASSERT_TRUE(tenants_->set_limit({"key acme/web/ci", 2'000}, {.subject = "acme", .amount = 9}).has_value());
  ASSERT_TRUE(tenants_->revoke_key(by_, "acme/web/ci").has_value());
  ASSERT_TRUE(tenants_->remove_project(by_, "acme/web").has_value());
  ASSERT_TRUE(tenants_->remove_organisation(by_, "acme").has_value());
  const auto lines = tenants_->audit(0, 100).value();
  std::string actions;
  for (const auto& line : lines) {
    actions += line.action + " " + line.object + "; ";
    EXPECT_EQ(line.detail.find(made.token), std::string::npos);
  }
  EXPECT_EQ(actions,
            "organisation.add acme; project.add acme/web; key.add acme/web/ci; limit.set acme; key.revoke "
            "acme/web/ci; project.remove acme/web; organisation.remove acme; ");
  EXPECT_EQ(lines[3].actor, "key acme/web/ci");
  EXPECT_EQ(tenants_->audit(lines[5].id, 100).value().size(), 1u);
}

TEST(SecretBox, OpensOnlyWithItsKeyAndContextAndUnchanged) {
  const std::string key(32, 'k'), other(32, 'o');
  const std::string sealed = seal(key, "secret", "AKIA1");
  EXPECT_EQ(unseal(key, sealed, "AKIA1").value(), "secret");
  EXPECT_NE(sealed, seal(key, "secret", "AKIA1"));
  EXPECT_FALSE(unseal(other, sealed, "AKIA1").has_value());
  EXPECT_FALSE(unseal(key, sealed, "AKIA2").has_value());
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    std::string changed = sealed;
    changed[i] = changed[i] == '0' ? '1' : '0';
    EXPECT_FALSE(unseal(key, changed, "AKIA1").has_value()) << i;
  }
  EXPECT_FALSE(unseal(key, "abc", "AKIA1").has_value());
  EXPECT_FALSE(unseal(key, "zz", "AKIA1").has_value());
}

}  // namespace
}  // namespace capstan::store

// Goal: models, prices and aliases survive a restart, and a weighted alias splits requests by their hash.
#include "store/catalogue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "base/file.h"
#include "base/prng.h"

namespace capstan::store {
namespace {

using testing::HasSubstr;

class CatalogueTest : public testing::Test {
 protected:
  CatalogueTest() : directory_(std::filesystem::temp_directory_path() / ("capstan-catalogue-" + random_hex(6))) {
    std::filesystem::create_directories(directory_);
    open();
  }
  ~CatalogueTest() override {
    catalogue_.reset();
    database_.reset();
    std::filesystem::remove_all(directory_);
  }
  void open() {
    catalogue_.reset();
    database_.reset();
    const Tables* list[] = {&kTenantTables, &kCatalogueTables};
    database_ = open_sqlite((directory_ / "store.sqlite").string(), list, {.fsync = false}).value();
    catalogue_ = Catalogue::open(*database_, directory_ / "secrets.key").value();
  }
  std::filesystem::path directory_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<Catalogue> catalogue_;
  const Change by_{"test", 1'000};
};

TEST_F(CatalogueTest, AbacusIsThereAndWhatIsPutIsThereAfterARestart) {
  ASSERT_NE(catalogue_->find("abacus"), nullptr);
  const Model model{.name = "gpt-oss-20b",
                    .source = "/models/gpt-oss-20b",
                    .format = "gpt-oss",
                    .context_length = 131'072,
                    .modalities = {"text", "image"},
                    .licence = "Apache-2.0",
                    .price = {70'000, 7'000, 300'000},
                    .card = "A card,\nwith lines."};
  ASSERT_TRUE(catalogue_->put(by_, model).has_value());
  ASSERT_TRUE(catalogue_->set_alias(by_, "openai.gpt-oss-20b-1:0", {{"gpt-oss-20b"}}).has_value());
  open();
  const ModelPtr found = catalogue_->find("openai.gpt-oss-20b-1:0");
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->name, "gpt-oss-20b");
  EXPECT_EQ(found->price, model.price);
  EXPECT_EQ(found->modalities, model.modalities);
  EXPECT_EQ(found->card, model.card);
  EXPECT_EQ(catalogue_->models().size(), 2u);
  EXPECT_EQ(catalogue_->name_of(found->id), "gpt-oss-20b");
}

TEST_F(CatalogueTest, AKeyForAModelElsewhereIsStoredSealedAndIsThereAfterARestart) {
  const Model model{.name = "there", .source = "https://host/v1", .upstream_key = "sk-very-secret"};
  ASSERT_TRUE(catalogue_->put(by_, model).has_value());
  open();
  EXPECT_EQ(catalogue_->find("there")->upstream_key, "sk-very-secret");
  const auto rows = database_->read("SELECT sealed_key FROM model WHERE source <> ''");
  ASSERT_TRUE(rows.has_value());
  EXPECT_EQ((*rows)[0].text(0).find("very"), std::string::npos);
  const auto audit = database_->read("SELECT detail FROM audit");
  ASSERT_TRUE(audit.has_value());
  for (const Row& row : *audit) EXPECT_EQ(row.text(0).find("very"), std::string::npos);
  Model wrong = model;
  wrong.upstream_key = "two words";
  EXPECT_THAT(catalogue_->put(by_, wrong).error().message, HasSubstr("printable ASCII"));
  wrong = {.name = "here", .source = "/models/here", .upstream_key = "sk"};
  EXPECT_THAT(catalogue_->put(by_, wrong).error().message, HasSubstr("the URL of a server"));
}

TEST_F(CatalogueTest, AWeightedAliasSplitsRequestsByTheirHashAndTheSameHashGetsTheSameModel) {
  ASSERT_TRUE(catalogue_->put(by_, {.name = "old"}).has_value());
  ASSERT_TRUE(catalogue_->put(by_, {.name = "new"}).has_value());
  ASSERT_TRUE(catalogue_->set_alias(by_, "chat", {{"old", 9}, {"new", 1}}).has_value());
  std::map<std::string, int> count;
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    const std::uint64_t hash = Prng::at(1, i);
    ++count[catalogue_->resolve("chat", hash)];
    EXPECT_EQ(catalogue_->resolve("chat", hash), catalogue_->resolve("chat", hash));
  }
  EXPECT_EQ(count["old"] + count["new"], 10'000);
  EXPECT_NEAR(count["new"], 1'000, 150);
  EXPECT_EQ(catalogue_->resolve("old", 7), "old");
  EXPECT_EQ(catalogue_->resolve("unknown", 7), "unknown");
}

TEST_F(CatalogueTest, RefusalsNameWhatIsWrong) {
  const auto says = [](const auto& result, std::string_view text) {
    ASSERT_FALSE(result.has_value());
    EXPECT_THAT(result.error().message, HasSubstr(std::string(text)));
  };
  says(catalogue_->put(by_, {.name = "two words"}), "not 'two words'");
  says(catalogue_->put(by_, {.name = "x", .price = {-1, 0, 0}}), "not -1");
  says(catalogue_->remove(by_, "gone"), "no model 'gone'");
  says(catalogue_->set_alias(by_, "a", {{"gone"}}), "no model 'gone'");
  says(catalogue_->set_alias(by_, "a", {{"abacus", 0}}), "not 0");
  says(catalogue_->set_alias(by_, "a", {{"abacus"}, {"abacus"}}), "twice");
  says(catalogue_->set_alias(by_, "abacus", {{"abacus"}}), "is a model");
  says(catalogue_->set_alias(by_, "a", {}), "no alias 'a'");
  ASSERT_TRUE(catalogue_->set_alias(by_, "a", {{"abacus"}}).has_value());
  says(catalogue_->remove(by_, "abacus"), "alias 'a' points to");
  says(catalogue_->put(by_, {.name = "a"}), "is an alias");
  ASSERT_TRUE(catalogue_->set_alias(by_, "a", {}).has_value());
  EXPECT_TRUE(catalogue_->remove(by_, "abacus").has_value());
  open();
  EXPECT_EQ(catalogue_->find("abacus"), nullptr);  // what was removed does not come back
}

TEST_F(CatalogueTest, AModelThatIsOnlyServedGetsANumberThatStays) {
  const std::int64_t number = catalogue_->number_of("served-only");
  EXPECT_GT(number, 0);
  EXPECT_EQ(catalogue_->number_of("served-only"), number);
  open();
  EXPECT_EQ(catalogue_->number_of("served-only"), number);
  EXPECT_EQ(catalogue_->name_of(number), "served-only");
  EXPECT_EQ(catalogue_->find("served-only"), nullptr);
  EXPECT_EQ(catalogue_->put(by_, {.name = "served-only"}).value()->id, number);
}

TEST(Cost, IsExactAndRoundedUpOnceToANanoDollar) {
  const Price price{70'000, 7'000, 300'000};
  EXPECT_EQ(cost_nano_dollars(price, 0, 0, 0), 0);
  EXPECT_EQ(cost_nano_dollars(price, 1, 0, 0), 70);        // $0.07 / 10^6
  EXPECT_EQ(cost_nano_dollars(price, 1, 1, 0), 7);
  EXPECT_EQ(cost_nano_dollars(price, 1'000'000, 0, 1'000'000), 370'000'000);  // 37 cents
  EXPECT_EQ(cost_nano_dollars({1, 0, 0}, 1, 0, 0), 1);     // a thousandth of it, rounded up
  EXPECT_EQ(cost_nano_dollars({1, 0, 0}, 1000, 0, 0), 1);
  EXPECT_EQ(cost_nano_dollars({1'000'000'000'000, 0, 0}, std::int64_t{1} << 60, 0, 0), INT64_MAX);
}

}  // namespace
}  // namespace capstan::store

// Catalogue: models as objects of their own, whether or not a service serves them now.
//
//   CAPSTAN_TRY(auto catalogue, Catalogue::open(*database, directory / "secrets.key"));
//   CAPSTAN_CHECK(catalogue->put({"control token", now_ms}, {.name = "gpt-oss-20b", .context_length = 131'072}));
//   ModelPtr model = catalogue->find("openai.gpt-oss-20b-1:0");        // by name or alias; null if unknown
//   std::string name = catalogue->resolve("chat", hash_of_request);    // a weighted alias, for canaries
//
// `abacus` is there from the beginning. An alias may point to several models with weights; which one a request
// gets follows from its hash alone. Prices are micro-dollars for a million tokens ($0.07 is 70,000).
// Threads: every method from any thread.  Cost: find and resolve one hash lookup.  Failure: kInvalid,
// kNotFound, kConflict; a change is durable when its method returns.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/database.h"
#include "store/tenants.h"

namespace capstan::store {

extern const Tables kCatalogueTables;

// In micro-dollars for a million tokens.
struct Price {
  std::int64_t input = 0;
  std::int64_t cached = 0;  // input tokens that were in a prefix cache
  std::int64_t output = 0;
  friend bool operator==(const Price&, const Price&) = default;
};

// What so many tokens cost, rounded up to a nano-dollar. `cached` of the `prompt` tokens were cached.
std::int64_t cost_nano_dollars(const Price& price, std::int64_t prompt, std::int64_t cached, std::int64_t completion);

struct Model {
  std::int64_t id = 0;  // small; usage refers to it
  std::string name = {};
  std::string source = {};  // a directory, or the URL of an OpenAI-compatible server; empty: services only
  std::string format = {};  // "gpt-oss", "gguf", …; of people's choosing
  std::int64_t context_length = 0;                // tokens; 0: not known
  std::vector<std::string> modalities = {"text"};  // what it reads and writes
  std::string licence = {};
  Price price = {};
  std::string card = {};  // text for people
  std::string upstream_key = {};  // a bearer for the server of `source`; never shown, stored sealed
  std::int64_t requests_per_replica = 0;  // that a replica serves well together; 0: the gateway's own number
  std::int64_t created_ms = 0;

  bool has_upstream() const { return source.starts_with("http://") || source.starts_with("https://"); }
};
using ModelPtr = std::shared_ptr<const Model>;  // shared by the requests under way and the index

struct AliasTarget {
  std::string model = {};
  std::int64_t weight = 1;
};
struct Alias {
  std::string name = {};
  std::vector<AliasTarget> targets = {};  // in order of their names
};

class Catalogue {
 public:
  // `secrets_key`: the file of load_or_make_key; without it models can have no upstream_key.
  static Result<std::unique_ptr<Catalogue>> open(Database& database, const std::filesystem::path& secrets_key = {});
  ~Catalogue();

  // By name, or by an alias (of several targets the heaviest). Null if there is none.
  ModelPtr find(std::string_view name) const;
  // The model's name that a request with this hash gets; `name` itself if it is no alias.
  std::string resolve(std::string_view name, std::uint64_t hash) const;
  bool has_aliases() const { return has_aliases_.load(std::memory_order_relaxed); }
  // Grows with each change of a model or an alias: who caches them looks again.
  std::uint64_t version() const { return version_.load(std::memory_order_acquire); }
  std::vector<ModelPtr> models() const;  // in order of their names
  std::vector<Alias> aliases() const;
  // The model's name by its number, of removed ones too; "" if there is none.
  std::string name_of(std::int64_t id) const;
  // The number of a model that is served but not in the catalogue: made on first use, for usage.
  std::int64_t number_of(std::string_view name);

  // Adds, or replaces what there is of that name.
  Result<ModelPtr> put(const Change& by, Model model);
  Result<void> remove(const Change& by, const std::string& name);
  // No targets: the alias goes.
  Result<void> set_alias(const Change& by, const std::string& name, std::vector<AliasTarget> targets);

 private:
  struct Index;
  void note_change();  // with the index locked
  Catalogue(Database& database, std::string secrets_key);
  Result<void> load();

  Database& database_;
  const std::string secrets_key_;
  std::unique_ptr<Index> index_;
  std::atomic<std::uint64_t> version_{1};
  std::atomic<bool> has_aliases_{false};
};

}  // namespace capstan::store

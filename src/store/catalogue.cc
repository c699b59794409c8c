// How: as Tenants: checked, written with an audit line, applied when durable. Each name has a number that
// usage refers to and that outlives the model.
#include "store/catalogue.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "base/text.h"
#include "store/secret_box.h"

namespace capstan::store {

const Tables kCatalogueTables{"catalogue", {R"(
CREATE TABLE model_name (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE model (id BIGINT PRIMARY KEY REFERENCES model_name (id), source TEXT NOT NULL, format TEXT NOT NULL,
  context_length BIGINT NOT NULL, modalities TEXT NOT NULL, licence TEXT NOT NULL, price_input BIGINT NOT NULL,
  price_cached BIGINT NOT NULL, price_output BIGINT NOT NULL, card TEXT NOT NULL, created_ms BIGINT NOT NULL);
CREATE TABLE model_alias (name TEXT NOT NULL, target TEXT NOT NULL, weight BIGINT NOT NULL, PRIMARY KEY (name, target));
INSERT INTO model_name VALUES (1, 'abacus');
INSERT INTO model VALUES (1, '', 'gpt-oss', 4096, 'text', 'Apache-2.0', 0, 0, 0,
  'Answers checkable mathematics and shows its working: 4.1 M parameters, one token a byte, harmony format.', 0);
)",
                                           "ALTER TABLE model ADD COLUMN requests_per_replica BIGINT NOT NULL DEFAULT 0",
                                           "ALTER TABLE model ADD COLUMN sealed_key TEXT NOT NULL DEFAULT ''"}};

namespace {

constexpr std::size_t kNameMax = 128;
constexpr std::int64_t kPriceMax = 1'000'000'000'000;  // a million dollars
constexpr std::int64_t kTokensMax = std::int64_t{1} << 40;
constexpr std::int64_t kRequestsPerReplicaMax = 100'000;
constexpr std::size_t kTargetsMax = 16;
constexpr std::int64_t kWeightMax = 1'000'000;
constexpr std::size_t kCardMax = 64 << 10;
constexpr std::size_t kUpstreamKeyMax = 4096;
constexpr std::size_t kNumbersMax = 100'000;  // of names that are only in usage

Result<void> check_name(std::string_view name) {
  const bool plain = !name.empty() && name.size() <= kNameMax && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' || c == ':' || c == '/';
  });
  if (plain) return {};
  return fail(Code::kInvalid, "a model's name must be 1 to {} of letters, digits and . - _ : /, not '{}'", kNameMax,
              name);
}

Result<void> check(const Model& model) {
  CAPSTAN_CHECK(check_name(model.name));
  for (const std::int64_t price : {model.price.input, model.price.cached, model.price.output}) {
    if (price < 0 || price > kPriceMax)
      return fail(Code::kInvalid, "a price must be 0 to {} micro-dollars for a million tokens, not {}", kPriceMax,
                  price);
  }
  if (model.context_length < 0 || model.context_length > kTokensMax)
    return fail(Code::kInvalid, "the context must be 0 to {} tokens, not {}", kTokensMax, model.context_length);
  if (model.requests_per_replica < 0 || model.requests_per_replica > kRequestsPerReplicaMax)
    return fail(Code::kInvalid, "requests per replica must be 1 to {} (0: the gateway's own number), not {}",
                kRequestsPerReplicaMax, model.requests_per_replica);
  if (model.card.size() > kCardMax)
    return fail(Code::kInvalid, "the card may have {} bytes, it has {}", kCardMax, model.card.size());
  for (const std::string& modality : model.modalities) {
    if (modality.empty() || modality.contains(','))
      return fail(Code::kInvalid, "'{}' is no modality; say text, image, audio, …", modality);
  }
  return {};
}

Result<void> check_key(const Model& model, bool kept_secret) {
  if (model.upstream_key.empty()) return {};
  if (!model.has_upstream())
    return fail(Code::kInvalid, "a key is for a model whose source is the URL of a server; '{}' has '{}'", model.name,
                model.source);
  if (!kept_secret) return fail(Code::kUnsupported, "this catalogue has no place for secrets");
  // What may stand in a header.
  const auto plain = [](unsigned char c) { return c > ' ' && c < 127; };
  if (model.upstream_key.size() <= kUpstreamKeyMax && std::ranges::all_of(model.upstream_key, plain)) return {};
  return fail(Code::kInvalid, "the key must be at most {} printable ASCII characters without blanks", kUpstreamKeyMax);
}

std::string key_context(std::string_view model) { return fmt::format("model {}", model); }

Result<void> save(Session& session, const Model& model, const std::string& sealed_key) {
  CAPSTAN_TRY(const auto named, session.run("INSERT INTO model_name VALUES ($1, $2) ON CONFLICT DO NOTHING",
                                            {model.id, model.name}));
  CAPSTAN_TRY(const auto old, session.run("DELETE FROM model WHERE id = $1", {model.id}));
  CAPSTAN_TRY(const auto rows,
              session.run("INSERT INTO model VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
                          {model.id, model.source, model.format, model.context_length,
                           fmt::format("{}", fmt::join(model.modalities, ",")), model.licence, model.price.input,
                           model.price.cached, model.price.output, model.card, model.created_ms,
                           model.requests_per_replica, sealed_key}));
  (void)named, (void)old, (void)rows;
  return {};
}

}  // namespace

std::int64_t cost_nano_dollars(const Price& price, std::int64_t prompt, std::int64_t cached,
                               std::int64_t completion) {
  // tokens x micro-dollars / 10^6 tokens = 10^-12 dollars; in 128 bits, for it may pass 2^63.
  const auto of = [](std::int64_t tokens, std::int64_t each) { return static_cast<__int128>(tokens) * each; };
  const __int128 pico = of(prompt - cached, price.input) + of(cached, price.cached) + of(completion, price.output);
  const __int128 nano = (pico + 999) / 1000;
  return static_cast<std::int64_t>(std::clamp<__int128>(nano, 0, INT64_MAX));
}

struct Catalogue::Index {
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  template <class T>
  using ByName = std::unordered_map<std::string, T, Hash, std::equal_to<>>;

  std::mutex changing;
  mutable std::shared_mutex mutex;
  std::map<std::int64_t, std::string> names;  // of all numbers
  ByName<std::int64_t> numbers;
  ByName<ModelPtr> models;
  ByName<Alias> aliases;

  std::int64_t next_number() const { return names.empty() ? 1 : names.rbegin()->first + 1; }
};

Catalogue::Catalogue(Database& database, std::string secrets_key)
    : database_(database), secrets_key_(std::move(secrets_key)), index_(std::make_unique<Index>()) {}
Catalogue::~Catalogue() = default;

Result<std::unique_ptr<Catalogue>> Catalogue::open(Database& database, const std::filesystem::path& secrets_key) {
  std::string key;
  if (!secrets_key.empty()) {
    CAPSTAN_TRY(key, load_or_make_key(secrets_key));
  }
  std::unique_ptr<Catalogue> catalogue(new Catalogue(database, std::move(key)));
  CAPSTAN_CHECK(catalogue->load());
  catalogue->note_change();
  return catalogue;
}

Result<void> Catalogue::load() {
  CAPSTAN_TRY(const Rows names, database_.read("SELECT id, name FROM model_name"));
  for (const Row& row : names) {
    index_->names[row.integer(0)] = row.text(1);
    index_->numbers[row.text(1)] = row.integer(0);
  }
  CAPSTAN_TRY(const Rows models,
              database_.read("SELECT id, source, format, context_length, modalities, licence, price_input, "
                             "price_cached, price_output, card, created_ms, requests_per_replica, sealed_key FROM model"));
  for (const Row& row : models) {
    Model model{.id = row.integer(0),
                .name = index_->names[row.integer(0)],
                .source = row.text(1),
                .format = row.text(2),
                .context_length = row.integer(3),
                .modalities = {},
                .licence = row.text(5),
                .price = {row.integer(6), row.integer(7), row.integer(8)},
                .card = row.text(9),
                .requests_per_replica = row.integer(11),
                .created_ms = row.integer(10)};
    const std::string modalities = row.text(4);
    for (const std::string_view part : split(modalities, ',')) model.modalities.emplace_back(part);
    if (const std::string sealed = row.text(12); !sealed.empty()) {
      CAPSTAN_TRY(model.upstream_key, unseal(secrets_key_, sealed, key_context(model.name)));
    }
    index_->models[model.name] = std::make_shared<const Model>(model);
  }
  CAPSTAN_TRY(const Rows aliases, database_.read("SELECT name, target, weight FROM model_alias ORDER BY name, target"));
  for (const Row& row : aliases) {
    Alias& alias = index_->aliases[row.text(0)];
    alias.name = row.text(0);
    alias.targets.push_back({row.text(1), row.integer(2)});
  }
  return {};
}

ModelPtr Catalogue::find(std::string_view name) const {
  const std::shared_lock lock(index_->mutex);
  const auto found = index_->models.find(name);
  if (found != index_->models.end()) return found->second;
  const auto alias = index_->aliases.find(name);
  if (alias == index_->aliases.end()) return nullptr;
  const auto heaviest = std::ranges::max_element(alias->second.targets, {}, &AliasTarget::weight);
  const auto target = index_->models.find(heaviest->model);
  return target == index_->models.end() ? nullptr : target->second;
}

std::string Catalogue::resolve(std::string_view name, std::uint64_t hash) const {
  const std::shared_lock lock(index_->mutex);
  const auto alias = index_->aliases.find(name);
  if (alias == index_->aliases.end()) return std::string(name);
  std::int64_t total = 0;
  for (const AliasTarget& target : alias->second.targets) total += target.weight;
  auto at = static_cast<std::int64_t>(hash % static_cast<std::uint64_t>(total));
  for (const AliasTarget& target : alias->second.targets) {
    at -= target.weight;
    if (at < 0) return target.model;
  }
  return alias->second.targets.back().model;
}

std::vector<ModelPtr> Catalogue::models() const {
  std::vector<ModelPtr> out;
  {
    const std::shared_lock lock(index_->mutex);
    for (const auto& [name, model] : index_->models) out.push_back(model);
  }
  std::ranges::sort(out, {}, [](const ModelPtr& model) { return model->name; });
  return out;
}

std::vector<Alias> Catalogue::aliases() const {
  std::vector<Alias> out;
  {
    const std::shared_lock lock(index_->mutex);
    for (const auto& [name, alias] : index_->aliases) out.push_back(alias);
  }
  std::ranges::sort(out, {}, &Alias::name);
  return out;
}

std::string Catalogue::name_of(std::int64_t id) const {
  const std::shared_lock lock(index_->mutex);
  const auto found = index_->names.find(id);
  return found == index_->names.end() ? std::string() : found->second;
}

void Catalogue::note_change() {
  has_aliases_ = !index_->aliases.empty();
  ++version_;
}

std::int64_t Catalogue::number_of(std::string_view name) {
  {
    const std::shared_lock lock(index_->mutex);
    const auto found = index_->numbers.find(name);
    if (found != index_->numbers.end()) return found->second;
  }
  const std::unique_lock lock(index_->mutex);
  const auto found = index_->numbers.find(name);
  if (found != index_->numbers.end()) return found->second;
  if (index_->names.size() >= kNumbersMax) return 0;
  const std::int64_t number = index_->next_number();
  index_->names[number] = name;
  index_->numbers[std::string(name)] = number;
  // In the queue before any usage that refers to it.
  database_.write(
      [number, text = std::string(name)](Session& session) -> Result<void> {
        const auto rows = session.run("INSERT INTO model_name VALUES ($1, $2) ON CONFLICT DO NOTHING", {number, text});
        if (!rows) return std::unexpected(rows.error());
        return {};
      },
      {});
  return number;
}

Result<ModelPtr> Catalogue::put(const Change& by, Model model) {
  CAPSTAN_CHECK(check(model));
  CAPSTAN_CHECK(check_key(model, !secrets_key_.empty()));
  const std::lock_guard changing(index_->changing);
  {
    const std::shared_lock lock(index_->mutex);
    if (index_->aliases.contains(model.name))
      return fail(Code::kConflict, "'{}' is an alias; remove that first", model.name);
  }
  model.id = number_of(model.name);
  if (model.id == 0) return fail(Code::kExhausted, "there are {} names of models already", kNumbersMax);
  model.created_ms = by.now_ms;
  const bool has_key = !model.upstream_key.empty();
  const std::string sealed = has_key ? seal(secrets_key_, model.upstream_key, key_context(model.name)) : "";
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_CHECK(save(session, model, sealed));
    return Tenants::note(session, by, "model.put", model.name,
                         fmt::format("input {} cached {} output {}{}", model.price.input, model.price.cached,
                                     model.price.output, has_key ? ", with a key" : ""));
  }));
  auto kept = std::make_shared<const Model>(std::move(model));
  const std::unique_lock lock(index_->mutex);
  index_->models[kept->name] = kept;
  note_change();
  return kept;
}

Result<void> Catalogue::remove(const Change& by, const std::string& name) {
  const std::lock_guard changing(index_->changing);
  ModelPtr found;
  {
    const std::shared_lock lock(index_->mutex);
    const auto at = index_->models.find(name);
    if (at != index_->models.end()) found = at->second;
    for (const auto& [alias_name, alias] : index_->aliases) {
      if (std::ranges::find(alias.targets, name, &AliasTarget::model) != alias.targets.end())
        return fail(Code::kConflict, "alias '{}' points to model '{}'; change that first", alias_name, name);
    }
  }
  if (!found) return fail(Code::kNotFound, "there is no model '{}'; `capstan model` lists them", name);
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto rows, session.run("DELETE FROM model WHERE id = $1", {found->id}));
    (void)rows;
    return Tenants::note(session, by, "model.remove", name, "");
  }));
  const std::unique_lock lock(index_->mutex);
  index_->models.erase(name);
  note_change();
  return {};
}

Result<void> Catalogue::set_alias(const Change& by, const std::string& name, std::vector<AliasTarget> targets) {
  CAPSTAN_CHECK(check_name(name));
  if (targets.size() > kTargetsMax) return fail(Code::kInvalid, "an alias may have {} targets", kTargetsMax);
  std::ranges::sort(targets, {}, &AliasTarget::model);
  const std::lock_guard changing(index_->changing);
  std::string detail;
  {
    const std::shared_lock lock(index_->mutex);
    if (index_->models.contains(name)) return fail(Code::kConflict, "'{}' is a model; an alias needs another name", name);
    if (targets.empty() && !index_->aliases.contains(name))
      return fail(Code::kNotFound, "there is no alias '{}'; `capstan model` lists them", name);
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (!index_->models.contains(targets[i].model))
        return fail(Code::kNotFound, "there is no model '{}'; `capstan model` lists them", targets[i].model);
      if (targets[i].weight < 1 || targets[i].weight > kWeightMax)
        return fail(Code::kInvalid, "a weight must be 1 to {}, not {}", kWeightMax, targets[i].weight);
      if (i > 0 && targets[i].model == targets[i - 1].model)
        return fail(Code::kInvalid, "'{}' stands there twice", targets[i].model);
      detail += fmt::format("{}{}={}", detail.empty() ? "" : " ", targets[i].model, targets[i].weight);
    }
  }
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto gone, session.run("DELETE FROM model_alias WHERE name = $1", {name}));
    (void)gone;
    for (const AliasTarget& target : targets) {
      CAPSTAN_TRY(const auto rows,
                  session.run("INSERT INTO model_alias VALUES ($1, $2, $3)", {name, target.model, target.weight}));
      (void)rows;
    }
    return Tenants::note(session, by, targets.empty() ? "alias.remove" : "alias.set", name, detail);
  }));
  const std::unique_lock lock(index_->mutex);
  if (targets.empty()) {
    index_->aliases.erase(name);
  } else {
    index_->aliases[name] = {name, std::move(targets)};
  }
  note_change();
  return {};
}

}  // namespace capstan::store

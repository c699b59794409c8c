#include "gateway/openai/file_store.h"

#include <ctime>
#include <set>

#include "base/file.h"

namespace capstan::gateway::openai {

const store::Tables kFileTables{"files", {R"sql(CREATE TABLE file (
             seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, name TEXT NOT NULL, purpose TEXT NOT NULL,
             bytes BIGINT NOT NULL, created BIGINT NOT NULL, expires BIGINT NOT NULL);
           CREATE INDEX file_owner ON file (owner, seq))sql"}};

namespace {

constexpr std::string_view kColumns = "id, name, purpose, bytes, created, expires, seq";

std::int64_t now_seconds() { return static_cast<std::int64_t>(std::time(nullptr)); }

Json object_of(const store::Row& row) {
  Json file = Json::object({{"id", row.text(0)},
                            {"object", "file"},
                            {"bytes", row.integer(3)},
                            {"created_at", row.integer(4)},
                            {"filename", row.text(1)},
                            {"purpose", row.text(2)},
                            {"status", "processed"}});
  if (row.integer(5) != 0) file["expires_at"] = row.integer(5);
  return file;
}

std::unexpected<Error> not_found(const std::string& id) {
  return std::unexpected(Error{.code = Code::kNotFound, .message = fmt::format("No such File object: {}", id), .field = "id"});
}

}  // namespace

FileStore::FileStore(store::Database& database, std::filesystem::path directory)
    : database_(database), directory_(std::move(directory)) {}

Result<std::unique_ptr<FileStore>> FileStore::open(store::Database& database,
                                                   std::filesystem::path directory) {
  CAPSTAN_CHECK(make_directories(directory, 0700));
  CAPSTAN_CHECK(database.write([](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("DELETE FROM file WHERE expires <> 0 AND expires < $1", {now_seconds()}));
    return {};
  }));
  CAPSTAN_TRY(const store::Rows rows, database.read("SELECT id FROM file"));
  std::set<std::string> known;
  for (const store::Row& row : rows) known.insert(row.text(0));
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
    if (!known.contains(entry.path().filename().string())) std::filesystem::remove(entry.path(), ignored);
  }
  return std::unique_ptr<FileStore>(new FileStore(database, std::move(directory)));
}

Result<Json> FileStore::add(const std::string& owner, const New& file) {
  if (file.content.size() > kFileBytesMax)
    return fail(Code::kExhausted, "a file may have {} bytes, not {}", kFileBytesMax, file.content.size());
  CAPSTAN_TRY(const store::Rows count, database_.read("SELECT COUNT(*) FROM file WHERE owner = $1", {owner}));
  if (count[0].integer(0) >= kFilesMax)
    return fail(Code::kExhausted, "a project may keep {} files; delete some", kFilesMax);
  const std::string id = "file-" + random_hex(12);
  CAPSTAN_CHECK(write_file_atomic(directory_ / id, file.content, 0600));
  const std::int64_t now = now_seconds();
  CAPSTAN_CHECK(database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(
        session.run("INSERT INTO file (id, owner, name, purpose, bytes, created, expires) VALUES ($1, $2, "
                    "$3, $4, $5, $6, $7)",
                    {id, owner, file.name, file.purpose, static_cast<std::int64_t>(file.content.size()), now,
                     file.expires}));
    return {};
  }));
  return find(owner, id);
}

Result<Json> FileStore::find(const std::string& owner, const std::string& id) const {
  CAPSTAN_TRY(
      const store::Rows rows,
      database_.read(fmt::format("SELECT {} FROM file WHERE id = $1 AND owner = $2", kColumns), {id, owner}));
  if (rows.empty() || (rows[0].integer(5) != 0 && rows[0].integer(5) < now_seconds())) return not_found(id);
  return object_of(rows[0]);
}

Result<std::shared_ptr<const http::BodyFile>> FileStore::content(const std::string& owner, const std::string& id) const {
  CAPSTAN_CHECK(find(owner, id));  // only ids that exist become paths
  return http::BodyFile::open(directory_ / id);
}

Result<void> FileStore::remove(const std::string& owner, const std::string& id) {
  CAPSTAN_CHECK(find(owner, id));
  CAPSTAN_CHECK(database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("DELETE FROM file WHERE id = $1 AND owner = $2", {id, owner}));
    return {};
  }));
  std::error_code ignored;
  std::filesystem::remove(directory_ / id, ignored);
  return {};
}

Result<Json> FileStore::list(const std::string& owner, const Listing& listing) const {
  std::int64_t after = listing.ascending ? 0 : INT64_MAX;
  if (!listing.after.empty()) {
    CAPSTAN_TRY(const store::Rows at,
                database_.read("SELECT seq FROM file WHERE id = $1 AND owner = $2", {listing.after, owner}));
    if (at.empty()) return not_found(listing.after);
    after = at[0].integer(0);
  }
  const std::string sql = fmt::format(
      "SELECT {} FROM file WHERE owner = $1 AND seq {} $2 AND (purpose = $3 OR $3 = '') AND (expires = 0 OR "
      "expires >= $4) "
      "ORDER BY seq {} LIMIT $5",
      kColumns, listing.ascending ? ">" : "<", listing.ascending ? "ASC" : "DESC");
  CAPSTAN_TRY(const store::Rows rows,
              database_.read(sql, {owner, after, listing.purpose, now_seconds(), listing.limit + 1}));
  Json data = Json::array();
  for (const store::Row& row : rows) {
    if (static_cast<std::int64_t>(data.size()) < listing.limit) data.push_back(object_of(row));
  }
  Json first, last;
  if (data.size() > 0) first = *data.items().front().find("id");
  if (data.size() > 0) last = *data.items().back().find("id");
  const bool more = static_cast<std::int64_t>(rows.size()) > listing.limit;
  return Json::object({{"object", "list"},
                       {"data", std::move(data)},
                       {"first_id", std::move(first)},
                       {"last_id", std::move(last)},
                       {"has_more", more}});
}

}  // namespace capstan::gateway::openai

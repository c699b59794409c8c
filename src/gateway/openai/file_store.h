// Files that clients upload (inputs of batches) and that batches write: content on disk, the rest in SQL.
//
//   CAPSTAN_TRY(auto files, FileStore::open(database, directory / "files"));
//   CAPSTAN_TRY(Json file, files->add("acme/web", {.name = "in.jsonl", .purpose = "batch", .content =
//   bytes}));
//
// Each project sees its own only. A file is found once its content and its row are durable.
// Threads: safe from any; every method blocks on disk.  Bounds: kFileBytesMax each, kFilesMax for each
// project. Failure: kNotFound with the id, kExhausted at a bound or a full disk, else the database's.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "http/body_file.h"
#include "store/database.h"

namespace capstan::gateway::openai {

inline constexpr std::uint64_t kFileBytesMax = 512u << 20;
inline constexpr std::int64_t kFilesMax = 10'000;

extern const store::Tables kFileTables;

class FileStore {
 public:
  struct New {
    std::string name = {};
    std::string purpose = {};
    std::string_view content = {};
    std::int64_t expires = 0;  // seconds since 1970; 0: never
  };
  struct Listing {
    std::string after = {};
    std::string purpose = {};
    std::int64_t limit = 10'000;
    bool ascending = false;
  };
  // Makes the directory, and removes what has expired or what a crash left without its row.
  static Result<std::unique_ptr<FileStore>> open(store::Database& database, std::filesystem::path directory);

  Result<Json> add(const std::string& owner, const New& file);  // OpenAI's file object
  Result<Json> find(const std::string& owner, const std::string& id) const;
  // Mapped, so it stays whole for who has it when the file is removed.
  Result<std::shared_ptr<const http::BodyFile>> content(const std::string& owner, const std::string& id) const;
  Result<void> remove(const std::string& owner, const std::string& id);
  // {"object": "list", "data", "first_id", "last_id", "has_more"}, newest first.
  Result<Json> list(const std::string& owner, const Listing& listing) const;

 private:
  FileStore(store::Database& database, std::filesystem::path directory);
  store::Database& database_;
  const std::filesystem::path directory_;
};

}  // namespace capstan::gateway::openai

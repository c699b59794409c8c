// Goal: containers and their files as OpenAI's clients see them, each project its own. Method: between sockets, over a host of
// containers in memory.
#include "gateway/openai/containers.h"

#include <algorithm>
#include <map>

#include "gateway/openai/openai_testing.h"

namespace capstan::gateway::openai {
namespace {

class MemoryHost final : public ContainerHost {
 public:
  Result<Container> create(const Caller& caller, const std::string& id, const std::string& name) override {
    if (full) return fail(Code::kExhausted, "the project may have no more");
    const auto count = static_cast<std::int64_t>(all_.size());
    all_[id] = {caller.project, {.id = id, .name = name, .created_at = 100 + count, .last_active_at = 200}};
    return all_[id].container;
  }
  Result<std::vector<Container>> list(const Caller& caller) override {
    std::vector<Container> out;
    for (const auto& [id, kept] : all_) {
      if (kept.project == caller.project) out.push_back(kept.container);
    }
    std::ranges::sort(out, {}, &Container::created_at);
    return out;
  }
  Result<Container> about(const Caller& caller, const std::string& id) override {
    CAPSTAN_TRY(Kept* const kept, find(caller, id));
    return kept->container;
  }
  Result<void> remove(const Caller& caller, const std::string& id) override {
    CAPSTAN_CHECK(find(caller, id));
    all_.erase(id);
    return {};
  }
  Result<std::vector<File>> files(const Caller& caller, const std::string& id) override {
    CAPSTAN_TRY(Kept* const kept, find(caller, id));
    std::vector<File> out;
    for (const auto& [path, bytes] : kept->files) out.push_back({path, std::ssize(bytes), 300});
    return out;
  }
  Result<File> write(const Caller& caller, const std::string& id, const std::string& path, std::string_view bytes) override {
    CAPSTAN_TRY(Kept* const kept, find(caller, id));
    if (bytes == "too much") return fail(Code::kExhausted, "the container is full");
    kept->files[path] = bytes;
    return File{path, std::ssize(bytes), 300};
  }
  Result<std::string> read(const Caller& caller, const std::string& id, const std::string& path) override {
    CAPSTAN_TRY(Kept* const kept, find(caller, id));
    if (!kept->files.contains(path)) return fail(Code::kNotFound, "{} is not there", path);
    return kept->files[path];
  }
  Result<void> remove_file(const Caller& caller, const std::string& id, const std::string& path) override {
    CAPSTAN_TRY(Kept* const kept, find(caller, id));
    if (kept->files.erase(path) == 0) return fail(Code::kNotFound, "{} is not there", path);
    return {};
  }

  bool full = false;

 private:
  struct Kept {
    std::string project;
    Container container;
    std::map<std::string, std::string> files;
  };
  Result<Kept*> find(const Caller& caller, const std::string& id) {
    const auto found = all_.find(id);
    if (found == all_.end() || found->second.project != caller.project) return fail(Code::kNotFound, "no container {}", id);
    return &found->second;
  }
  std::map<std::string, Kept> all_;
};

class ContainersTest : public OpenAiTest {
 protected:
  ContainerHost* containers() override { return &host_; }
  std::string upload(const std::string& target, const std::string& name, const std::string& content) {
    const http::Request form = upload_request(name, content, "user_data");
    return send("POST", target, form.body, form.headers).body;
  }
  MemoryHost host_;
};

TEST_F(ContainersTest, AreMadeListedReadAndEnded) {
  const Json made = post("/v1/containers", R"({"name":"one"})");
  const std::string id = id_of(made);
  EXPECT_EQ(made.dump(), fmt::format(R"({{"id":"{}","object":"container","created_at":100,"status":"running","expires_after":)"
                                     R"({{"anchor":"last_active_at","minutes":20}},"last_active_at":200,"name":"one"}})", id));
  const std::string second =
      id_of(post("/v1/containers", R"({"name":"two","expires_after":{"anchor":"last_active_at","minutes":20}})"));
  EXPECT_EQ(get("/v1/containers/" + id).dump(), made.dump());
  EXPECT_EQ(get("/v1/containers?limit=1").get_string("first_id"), second);
  EXPECT_EQ(get("/v1/containers?order=asc&after=" + id).find("data")->size(), 1u);
  const http::Headers other = {{"authorization", "Bearer other"}};
  EXPECT_EQ(send("GET", "/v1/containers/" + id, {}, other).status, 404);
  EXPECT_EQ(Json::parse(send("GET", "/v1/containers", {}, other).body)->find("data")->size(), 0u);
  EXPECT_EQ(send("DELETE", "/v1/containers/" + id).body,
            fmt::format(R"({{"id":"{}","object":"container.deleted","deleted":true}})", id));
  EXPECT_EQ(send("GET", "/v1/containers/" + id).status, 404);
}

TEST_F(ContainersTest, FilesGoInAndOut) {
  const std::string file = id_of(*Json::parse(upload("/v1/files", "a.csv", "1,2")));
  const std::string id = id_of(post("/v1/containers", fmt::format(R"({{"name":"x","file_ids":["{}"]}})", file)));
  const std::string files = fmt::format("/v1/containers/{}/files", id);
  const Json form = *Json::parse(upload(files, "../b \xC3\xA9.txt", "text"));
  EXPECT_EQ(form.get_string("path"), "b \xC3\xA9.txt");
  EXPECT_EQ(form.get_string("source"), "user");
  EXPECT_EQ(form.get_string("object"), "container.file");
  const Json named = post(files, fmt::format(R"({{"file_id":"{}"}})", file));
  EXPECT_EQ(named.get_string("path"), "a.csv");
  ASSERT_EQ(get(files).find("data")->size(), 2u);
  const std::string one = files + "/" + id_of(form);
  EXPECT_EQ(get(one).get_int("bytes"), 4);
  EXPECT_EQ(send("GET", one + "/content").body, "text");
  EXPECT_EQ(send("DELETE", one).body,
            fmt::format(R"({{"id":"{}","object":"container.file.deleted","deleted":true}})", id_of(form)));
  for (const std::string& gone : {one, one + "/content", files + "/cfile_zz", files + "/file-1"})
    EXPECT_EQ(send("GET", gone).status, 404) << gone;
  EXPECT_EQ(send("DELETE", one).status, 404);
}

TEST_F(ContainersTest, WhatCannotBeIsRefusedByName) {
  const auto refusal = [&](const std::string& body) {
    const http::Response response = send("POST", "/v1/containers", body);
    const Json* error = nullptr;
    const auto json = Json::parse(response.body);
    if (json) error = json->find("error");
    return error == nullptr ? response.body : fmt::format("{} {}", response.status, error->get_string("param").value_or(""));
  };
  EXPECT_EQ(refusal("[]"), "400 ");
  EXPECT_EQ(refusal("{}"), "400 name");
  EXPECT_EQ(refusal(R"({"name":"x","memory_limit":"4g"})"), "400 memory_limit");
  EXPECT_EQ(refusal(R"({"name":"x","expires_after":{"anchor":"created_at","minutes":20}})"), "400 expires_after.anchor");
  EXPECT_EQ(refusal(R"({"name":"x","expires_after":{"anchor":"last_active_at","minutes":5}})"), "400 expires_after.minutes");
  EXPECT_EQ(refusal(R"({"name":"x","file_ids":"file-1"})"), "400 file_ids");
  EXPECT_EQ(refusal(R"({"name":"x","file_ids":["file-1"]})"), "404 ");
  EXPECT_EQ(get("/v1/containers").find("data")->size(), 0u);  // none was left half made
  const std::string large = id_of(*Json::parse(upload("/v1/files", "l", "too much")));
  EXPECT_EQ(refusal(fmt::format(R"({{"name":"x","file_ids":["{}"]}})", large)), "429 ");
  EXPECT_EQ(get("/v1/containers").find("data")->size(), 0u);
  host_.full = true;
  EXPECT_EQ(refusal(R"({"name":"x"})"), "429 ");
}

TEST_F(OpenAiTest, ContainersNeedSandboxes) { EXPECT_EQ(send("GET", "/v1/containers").status, 400); }

TEST(ContainerFileId, IsMadeOfThePathAndLeadsBack) {
  for (const std::string path : {"a.txt", "dir/b c.csv", "\xC3\xA9"})
    EXPECT_EQ(container_file_path(container_file_id(path)), path);
  for (const char* wrong : {"", "cfile_", "cfile_6", "cfile_6G", "file_61"}) EXPECT_EQ(container_file_path(wrong), "") << wrong;
}

}  // namespace
}  // namespace capstan::gateway::openai

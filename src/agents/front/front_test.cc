// Goal: a request reaches the session host that has its sandbox, with what that host may see; lists are of all hosts; what is not
// there is told truly. Method: session hosts that the test plays behind HTTP servers of their own, one for each host.
#include "agents/front/front.h"

#include <gtest/gtest.h>

#include <atomic>

#include "agents/sessions/session_id.h"
#include "base/file.h"
#include "http/client.h"

namespace capstan::agents {
namespace {

// A session host: answers what it was asked, and lists its sandboxes a page at a time.
struct PlayedHost {
  std::string name, incarnation;
  std::vector<std::string> sandboxes;
  std::unique_ptr<http::Server> server;

  void start(const std::string& prefix) {
    http::Router router;
    router.add("GET", prefix + "/v2/sandboxes", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      const std::size_t limit = std::stoul(request.query_value("limit").value_or("0"));
      const std::string after = request.query_value("nextToken").value_or("");
      Json list = Json::array();
      bool begun = after.empty(), full = false;
      for (const std::string& one : sandboxes) {
        if (begun && list.size() == limit) full = true;
        if (begun && !full) list.push_back(Json::object({{"sandboxID", one}}));
        begun = begun || one == after;
      }
      http::Response answer = http::Response::json(200, list);
      if (full) answer.headers.set("x-next-token", list.items().back().get_string("sandboxID").value_or(""));
      respond(writer, std::move(answer));
    });
    for (const char* method : {"GET", "POST"}) {
      router.add(method, prefix + "/{rest...}", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
        Json seen = Json::object({{"by", name}, {"target", request.target}});
        for (const auto& [header, value] : request.headers.all()) seen[header] = value;
        respond(writer, http::Response::json(200, seen));
      });
    }
    server = std::move(*http::Server::start({.threads = 2}, router));
  }
  void respond(const http::ResponseWriterPtr& writer, http::Response answer) const {
    if (!incarnation.empty()) answer.headers.set(kWorkerHeader, incarnation);
    writer->respond(std::move(answer));
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}", server->port()); }
};

class PlayedPlaces final : public Places {
 public:
  std::uint64_t version() const override { return version_now; }
  Result<Place> find(const std::string& sandbox, const std::string&) override {
    ++asked;
    if (sandbox == "waits") return fail(Code::kConflict, "it waits");
    const auto found = places.find(sandbox);
    return found == places.end() ? Place{} : found->second;
  }
  std::vector<Place> with_sandboxes() override {
    std::vector<Place> out;
    for (const auto& [name, place] : places) out.push_back(place);
    return out;
  }
  std::vector<Place> others() override { return {}; }
  std::map<std::string, Place> places;
  std::atomic<std::uint64_t> version_now{1};
  std::atomic<int> asked{0};
};

class FrontTest : public testing::Test {
 protected:
  void SetUp() override {
    here_.start("");
    there_.start("/way");
    const auto address = Json::object({{"port", here_.server->port()}, {"token", "of-here"}});
    ASSERT_TRUE(write_file_atomic(file_, address.dump(), 0600));
    places_.places["far"] = {.host = "two", .url = there_.url(), .prefix = "/way", .token = "of-two", .incarnation = "i2"};
    front_ = std::make_unique<Front>(FrontOptions{
        .address = file_, .authenticate = [](const http::Request&) { return std::string("1/7/3"); }, .places = &places_});
    http::Router router;
    front_->mount(router);
    server_ = std::move(*http::Server::start({.threads = 2}, router));
  }
  void TearDown() override {
    front_->stop();
    server_.reset();
    std::filesystem::remove(file_);
  }
  http::Response ask(http::Request request) {
    auto answer = client_.request(fmt::format("http://127.0.0.1:{}", server_->port()), request, {});
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? *answer : http::Response{.status = 0};
  }
  Json seen(http::Request request) { return *Json::parse(ask(std::move(request)).body); }
  static std::vector<std::string> ids(const http::Response& answer) {
    std::vector<std::string> out;
    const Json list = *Json::parse(answer.body);
    for (const Json& one : list.items()) out.push_back(one.get_string("sandboxID").value_or(""));
    return out;
  }

  const std::filesystem::path file_ = std::filesystem::temp_directory_path() / ("front-test-" + random_hex(6));
  PlayedHost here_{.name = "here", .incarnation = {}, .sandboxes = {"a", "b"}, .server = nullptr};
  PlayedHost there_{.name = "two", .incarnation = "i2", .sandboxes = {"c", "d"}, .server = nullptr};
  PlayedPlaces places_;
  std::unique_ptr<Front> front_;
  std::unique_ptr<http::Server> server_;
  http::Client client_;
};

using Ids = std::vector<std::string>;

TEST_F(FrontTest, ASandboxIsReachedWhereItIsByItsPathItsHeaderAndMcpsQuery) {
  EXPECT_EQ(seen({.target = "/sandboxes/near"}).get_string("by"), "here");
  const Json far = seen({.target = "/sandboxes/far?x=1", .headers = {{"x-api-key", "secret"}, {"x-capstan-owner", "1/1/1"}}});
  EXPECT_EQ(far.get_string("by"), "two");
  EXPECT_EQ(far.get_string("target"), "/way/sandboxes/far?x=1");
  EXPECT_EQ(far.get_string("x-capstan-host-token"), "of-two");
  EXPECT_EQ(far.get_string("x-capstan-owner"), "1/7/3") << "the owner is the front's to say";
  EXPECT_FALSE(far.contains("x-api-key")) << "keys stay with the front";
  const Json files =
      seen({.target = "/files?path=x", .headers = {{"e2b-sandbox-id", "far"}, {"authorization", "Basic dTo="}}});
  EXPECT_EQ(files.get_string("by"), "two");
  EXPECT_EQ(files.get_string("authorization"), "Basic dTo=");
  EXPECT_FALSE(files.contains("x-capstan-owner"));
  EXPECT_EQ(seen({.method = "POST", .target = "/mcp?sandbox=far"}).get_string("by"), "two");
  EXPECT_EQ(seen({.method = "POST", .target = "/mcp"}).get_string("by"), "here");
}

TEST_F(FrontTest, PlacesAreAskedOnceForEachVersionAndNeverForWhatCannotBePlaced) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(seen({.target = "/sandboxes/far"}).get_string("by"), "two");
  EXPECT_EQ(places_.asked, 1);
  places_.places.clear();
  ++places_.version_now;
  EXPECT_EQ(seen({.target = "/sandboxes/far"}).get_string("by"), "here");
  EXPECT_EQ(places_.asked, 2);
  EXPECT_EQ(seen({.target = "/sandboxes/" + make_session_id()}).get_string("by"), "here");
  EXPECT_EQ(places_.asked, 2);
}

TEST_F(FrontTest, WhatCannotBeUsedIsToldWithItsHostAndNeverAsIfThereWereNone) {
  EXPECT_EQ(ask({.target = "/sandboxes/waits"}).status, 409);
  const auto snapshot = ask({.method = "POST", .target = "/sandboxes/far/snapshots"});
  EXPECT_EQ(snapshot.status, 409);
  EXPECT_NE(snapshot.body.find("host two"), snapshot.body.npos) << snapshot.body;
  there_.incarnation = "another";  // as if something else had got the port
  const auto other = ask({.target = "/sandboxes/far"});
  EXPECT_EQ(other.status, 503);
  EXPECT_NE(other.body.find("worker of host two"), other.body.npos) << other.body;
  there_.server.reset();
  const auto gone = ask({.target = "/sandboxes/far"});
  EXPECT_EQ(gone.status, 503);
  EXPECT_NE(gone.body.find("worker of host two"), gone.body.npos) << gone.body;
}

TEST_F(FrontTest, AListIsOfAllHostsAndItsPagesEndNowhereElse) {
  EXPECT_EQ(ids(ask({.target = "/v2/sandboxes"})), (Ids{"a", "b", "c", "d"}));
  for (const int limit : {1, 2, 3}) {
    Ids all;
    std::string next;
    do {
      const std::string from = next.empty() ? "" : "&nextToken=" + next;
      const auto page = ask({.target = fmt::format("/v2/sandboxes?limit={}{}", limit, from)});
      const Ids more = ids(page);
      EXPECT_LE(more.size(), static_cast<std::size_t>(limit));
      all.insert(all.end(), more.begin(), more.end());
      next = page.headers.get("x-next-token");
      ASSERT_LE(all.size(), 4u);
    } while (!next.empty());
    EXPECT_EQ(all, (Ids{"a", "b", "c", "d"})) << limit;
  }
  there_.server.reset();
  const auto rest = ask({.target = "/sandboxes"});
  EXPECT_EQ(ids(rest), (Ids{"a", "b"}));
  EXPECT_NE(rest.headers.get(kMissingHeader).find("two"), std::string::npos);
}

TEST(SessionId, TellsItsWorkload) {
  const std::string placed = make_session_id(70), other = make_session_id();
  EXPECT_EQ(workload_of(placed), 70);
  EXPECT_FALSE(is_unplaced_id(placed));
  EXPECT_TRUE(is_unplaced_id(other));
  for (const std::string& none : Ids{other, "workbench", "w7x12", "w0x" + other, "wx" + other, "w-1x" + other})
    EXPECT_FALSE(workload_of(none)) << none;
}

}  // namespace
}  // namespace capstan::agents

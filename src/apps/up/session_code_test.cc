// Goal: containers of code: made with their first code, found again by their project alone, renewed when they are gone,
// interrupted in time; output is bounded. Method: over sockets, against a scripted session host.
#include "apps/up/session_code.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "agents/front/front.h"
#include "agents/sessions/owner.h"
#include "base/file.h"

namespace capstan::apps {
namespace {

using Outcome = gateway::openai::CodeRunner::Outcome;

class SessionCodeTest : public testing::Test {
 protected:
  void SetUp() override {
    host_.add("POST", "/v2/sandboxes", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      note("create " + request.headers.get(agents::kOwnerHeader) + " " + request.body);
      if (full_ && !ended_) return writer->respond(http::Response::json(429, Json::object({{"message", "no more"}})));
      container_ = *Json::parse(request.body)->find("metadata")->get_string("openai_container");
      writer->respond(http::Response::json(201, Json::object({{"sandboxID", "s1"}, {"envdAccessToken", "t1"}})));
    });
    host_.add("GET", "/v2/sandboxes", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      Json list = Json::array();
      const bool own = request.headers.get(agents::kOwnerHeader) == "1/7/3";
      if (own && request.query_value("metadata") == "openai_container=" + container_)
        list.push_back(Json::object({{"sandboxID", "s1"}}));
      writer->respond(http::Response::json(200, list));
    });
    host_.add("DELETE", "/sandboxes/{id}", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      note("end " + request.param("id"));
      ended_ = true;
      writer->respond({.status = 204});
    });
    host_.add("GET", "/sandboxes/{id}", [](const http::Request&, const http::ResponseWriterPtr& writer) {
      writer->respond(http::Response::json(200, Json::object({{"envdAccessToken", "t1"}})));
    });
    host_.add("POST", "/sandboxes/{id}/timeout", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      note("prolong " + request.body);
      if (gone_.exchange(false)) return writer->respond(http::Response::json(404, Json::object({{"message", "no"}})));
      writer->respond({.status = 204});
    });
    host_.add("POST", "/execute", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      note(fmt::format("execute {} {}", request.headers.get("e2b-sandbox-id"), request.headers.get("x-access-token")));
      const std::string code = *Json::parse(request.body)->get_string("code");
      writer->start(200, {{"content-type", "application/x-ndjson"}});
      writer->write("{\"type\":\"stdout\",\"text\":\"out\\n\"}\n{\"type\":\"resu");
      writer->write("lt\",\"text\":\"" + code + "\",\"is_main_result\":true}\n");
      if (code == "show") writer->write("{\"type\":\"result\",\"text\":\"Figure 1\",\"png\":\"aGk=\\n\"}\n");
      if (code == "big") writer->write("{\"type\":\"result\",\"text\":\"f\",\"jpeg\":\"" + std::string(5u << 20, 'a') + "\"}\n");
      if (code == "die") writer->write("{\"type\":\"error\",\"name\":\"KernelDied\",\"traceback\":\"it ended\"}\n");
      if (code == "1/0") writer->write("{\"type\":\"error\",\"name\":\"ZeroDivisionError\",\"traceback\":\"trace\"}\n");
      while (code == "hang" && !writer->client_gone()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (code == "hang") note("interrupted");
      writer->finish();
    });
    host_.add("POST", "/files", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      note(fmt::format("put {} {} {}", request.headers.get("x-access-token"), *request.query_value("path"), request.body));
      if (request.body == "large") return writer->respond(http::Response::json(507, Json::object({{"message", "full"}})));
      writer->respond(http::Response::json(200, Json::array()));
    });
    host_.add_guard("/", [](const http::Request& request) -> std::optional<http::Response> {
      if (request.headers.get(agents::kHostTokenHeader) == "secret") return std::nullopt;
      return http::Response::text(403, "no");
    });
    host_server_ = std::move(http::Server::start({}, host_.handler()).value());
    address("");
    code_.mount(front_);
    eager_.mount(front_);
    front_.add_loop_hooks([this](http::EventLoop& loop) { loop_ = &loop; }, [] {});
    front_server_ = std::move(http::Server::start({}, front_.handler()).value());
  }
  void TearDown() override {
    front_server_.reset();
    host_server_.reset();
    std::filesystem::remove(file_);
  }

  void address(const std::string& refusal) {
    const Json json =
        Json::object({{"port", host_server_->port()}, {"token", "secret"}, {"refusal", refusal}});
    ASSERT_TRUE(write_file_atomic(file_, json.dump(), 0600));
  }
  void note(std::string line) {
    const std::scoped_lock lock(mutex_);
    said_.push_back(std::move(line));
  }
  std::vector<std::string> said() {
    const std::scoped_lock lock(mutex_);
    return std::exchange(said_, {});
  }
  // Runs it and waits.
  std::string run(const std::string& code, std::int64_t time_ms = 10'000, const std::string& container = "cntr_1",
                  SessionCode* runner = nullptr) {
    std::string text;
    bool over = false;
    std::mutex mutex;
    std::condition_variable changed;
    std::unique_ptr<gateway::openai::CodeRunner::Run> run;
    loop_->post([&] {
      SessionCode& of = runner == nullptr ? code_ : *runner;
      run = of.run({.caller = caller_, .container = container, .files = files_, .code = code, .time_ms = time_ms},
                   [&](Result<Outcome> outcome) {
                        run.reset();
                        const std::scoped_lock lock(mutex);
                        images_ = outcome ? outcome->images : std::vector<std::string>{};
                        text = outcome ? outcome->logs + (outcome->finished ? "" : " [not finished]")
                                       : "error: " + outcome.error().message;
                        over = true;
                        changed.notify_all();
                      });
    });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return over; });
    return text;
  }

  const std::filesystem::path file_ = testing::TempDir() + "session_code_" + random_hex(6) + ".json";
  SessionCode code_{file_};
  SessionCode eager_{file_, 0};  // to which no container is in use
  http::Router host_, front_;
  std::unique_ptr<http::Server> host_server_, front_server_;
  http::EventLoop* loop_ = nullptr;
  gateway::CallerPtr caller_ = std::make_shared<gateway::Caller>(gateway::Caller{.project_number = 7, .key_number = 3});
  std::vector<gateway::openai::CodeRunner::File> files_;  // of the next runs
  std::atomic<bool> full_{false}, gone_{false}, ended_{false};
  std::string container_;
  std::mutex mutex_;
  std::vector<std::string> said_, images_;  // images_: of the last run
};

TEST_F(SessionCodeTest, TheFirstCodeMakesTheContainerAndLaterCodeProlongsIt) {
  EXPECT_EQ(run("1"), "out\n1\n");
  EXPECT_EQ(said(), (std::vector<std::string>{
                        R"(create 1/7/3 {"templateID":"base","timeout":1200,"metadata":{"openai_container":"cntr_1"}})",
                        "execute s1 t1"}));
  EXPECT_EQ(run("2"), "out\n2\n");
  EXPECT_EQ(said(), (std::vector<std::string>{R"(prolong {"timeout":1200})", "execute s1 t1"}));
}

TEST_F(SessionCodeTest, FilesArePutBeforeTheCodeOnceForEachContainer) {
  const auto file = [&](const std::string& name, const std::string& content) {
    EXPECT_TRUE(write_file_atomic(file_.string() + name, content));
    auto opened = http::BodyFile::open(file_.string() + name);
    std::filesystem::remove(file_.string() + name);
    return gateway::openai::CodeRunner::File{"file-" + name, name, opened.value()};
  };
  files_ = {file("a b.csv", "1"), file("c", "2")};
  EXPECT_EQ(run("1"), "out\n1\n");
  const std::vector<std::string> put = {"put t1 a b.csv 1", "put t1 c 2", "execute s1 t1"};
  const auto rest = [](std::vector<std::string> lines) { return std::vector(lines.begin() + 1, lines.end()); };
  EXPECT_EQ(rest(said()), put);
  EXPECT_TRUE(code_.find(*caller_, "cntr_1"));
  EXPECT_EQ(run("2"), "out\n2\n");
  EXPECT_EQ(rest(said()), std::vector<std::string>{"execute s1 t1"});
  files_.push_back(file("d", "3"));
  EXPECT_EQ(run("3"), "out\n3\n");
  EXPECT_EQ(rest(said()), (std::vector<std::string>{"put t1 d 3", "execute s1 t1"}));
  files_.push_back(file("e", "large"));
  EXPECT_EQ(run("4"), "error: full");
}

TEST_F(SessionCodeTest, AContainerIsFoundByItsProjectAlone) {
  EXPECT_FALSE(code_.find(*caller_, "cntr_1"));
  EXPECT_EQ(run("1"), "out\n1\n");
  EXPECT_TRUE(code_.find(*caller_, "cntr_1"));
  const auto other = code_.find({.project_number = 8, .key_number = 3}, "cntr_1");
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Code::kNotFound);
}

TEST_F(SessionCodeTest, AContainerThatIsGoneIsMadeAgainAndTheOutputSaysSo) {
  (void)run("1");
  gone_ = true;
  EXPECT_EQ(run("2"), "[a new container: earlier variables and files are gone]\nout\n2\n");
}

TEST_F(SessionCodeTest, WhereThereIsNoRoomTheIdlestContainerOfTheProjectGivesWayButNoneInUse) {
  (void)run("1");
  (void)run("1", 10'000, "cntr_1", &eager_);
  full_ = true;
  EXPECT_EQ(run("2", 10'000, "cntr_2"), "error: no more");  // in use until a moment ago
  caller_ = std::make_shared<gateway::Caller>(gateway::Caller{.project_number = 8});
  EXPECT_EQ(run("2", 10'000, "cntr_2", &eager_), "error: no more");  // another project's does not give way
  caller_ = std::make_shared<gateway::Caller>(gateway::Caller{.project_number = 7});
  (void)said();
  EXPECT_EQ(run("2", 10'000, "cntr_2", &eager_), "out\n2\n");
  EXPECT_EQ(said()[1], "end s1");
}

TEST_F(SessionCodeTest, ErrorsOfTheCodeAreOutputAndAPythonThatDiesIsToldApart) {
  EXPECT_EQ(run("1/0"), "out\n1/0\ntrace");
  EXPECT_EQ(run("die"), "out\ndie\nit ended [not finished]");
}

TEST_F(SessionCodeTest, WhatCodeShowsAreImagesUpToABound) {
  EXPECT_EQ(run("show"), "out\nshow\nFigure 1\n");
  EXPECT_EQ(images_, (std::vector<std::string>{"data:image/png;base64,aGk="}));
  EXPECT_EQ(run("big"), "out\nbig\nf\n[an image left out: too many bytes of them]\n");
  EXPECT_TRUE(images_.empty());
}

TEST_F(SessionCodeTest, CodeThatRunsTooLongIsInterrupted) {
  EXPECT_EQ(run("hang", 100), "out\nhang\n\n[interrupted: it ran longer than 0 s] [not finished]");
  for (int i = 0; i < 5'000; ++i) {
    const auto lines = said();
    if (!lines.empty() && lines.back() == "interrupted") return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  FAIL() << "the host was not told";
}

TEST_F(SessionCodeTest, WithoutAHostOrRoomThereIsAnErrorThatSaysWhy) {
  full_ = true;
  EXPECT_EQ(run("1"), "error: no more");
  EXPECT_TRUE(code_.check());
  address("no user namespaces");
  std::filesystem::last_write_time(file_, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(code_.check().error().code, Code::kUnsupported);
  EXPECT_EQ(code_.check().error().message, "no user namespaces");
  std::filesystem::remove(file_);
  EXPECT_EQ(code_.check().error().code, Code::kUnavailable);
  EXPECT_EQ(run("1"), "error: the sandboxes' host has not started yet; try again in a moment");
}

TEST(CodeLogs, OfLongOutputTheBeginningAndTheEndAreKeptInWholeCharacters) {
  CodeLogs logs;
  std::string all;
  for (int i = 0; i < 100'000; ++i) {
    logs.add("é");
    all += "é";
  }
  logs.add("end");
  const std::string text = logs.text();
  const std::size_t gap = text.find("\n[");
  ASSERT_NE(gap, std::string::npos);
  EXPECT_EQ(gap, kLogsBytesMax / 2);
  EXPECT_TRUE(text.ends_with("éend"));
  EXPECT_LE(text.size(), kLogsBytesMax + 64);
  EXPECT_TRUE(Json::parse(Json(text).dump()));
  CodeLogs few;
  few.add("a");
  few.add("b");
  EXPECT_EQ(few.text(), "ab");
}

}  // namespace
}  // namespace capstan::apps

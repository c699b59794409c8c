// Goal: the code interpreter's loop: turns and code in turn, its events in OpenAI's order, what ends it, what it refuses.
// Method: the gateway between real sockets, over a replica that plays a script of turns and a runner that answers by
// the code's text.
#include "gateway/openai/code_loop.h"

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <atomic>
#include <deque>
#include <thread>

#include "base/file.h"
#include "gateway/event_splitter.h"
#include "gateway/openai/api_testing.h"
#include "gateway/openai/openai.h"
#include "http/client.h"

namespace capstan::gateway::openai {
namespace {

using namespace std::chrono_literals;

// "hang" never ends, "broken" cannot run, "1/0" has a traceback; else the code itself comes back, in angle brackets.
class ScriptedRunner final : public CodeRunner {
 public:
  const Gateway* gateway = nullptr;
  std::atomic<int> under_way{0}, runs{0};
  Result<void> able = {};

  Result<void> check() override { return able; }
  Result<void> find(const Caller& caller, const std::string& container) override {
    const std::scoped_lock lock(mutex_);
    if (containers_.contains(caller.project + "/" + container)) return {};
    return fail(Code::kNotFound, "Container with id '{}' not found.", container);
  }
  std::unique_ptr<Run> run(Work work, std::function<void(Result<Outcome>)> done) override {
    ++runs;
    {
      const std::scoped_lock lock(mutex_);
      containers_.insert(work.caller->project + "/" + work.container);
      files_.clear();
      for (const File& file : work.files) files_ += fmt::format("{}={} ", file.name, file.content->bytes());
    }
    auto run = std::make_unique<Scripted>(under_way);
    if (work.code == "hang") return run;
    Result<Outcome> outcome = Outcome{"<" + work.code + ">"};
    if (work.code == "1/0") outcome = Outcome{"ZeroDivisionError: division by zero\n"};
    if (work.code == "exit") outcome = Outcome{"its Python ended", false};
    if (work.code == "show") outcome = Outcome{"Figure 1\n", true, {"data:image/png;base64,aGk="}};
    if (work.code == "many") outcome = Outcome{"", true, {std::string(kImageBytesMax, 'a')}};
    if (work.code == "broken") outcome = fail(Code::kUnavailable, "the host is away");
    gateway->loop()->post([alive = std::weak_ptr(run->alive), done = std::move(done), outcome] {
      if (!alive.expired()) done(outcome);
    });
    return run;
  }
  void forget() {
    const std::scoped_lock lock(mutex_);
    containers_.clear();
  }
  // Of the last code.
  std::string files() {
    const std::scoped_lock lock(mutex_);
    return files_;
  }

 private:
  struct Scripted final : Run {
    explicit Scripted(std::atomic<int>& n) : count(n) { ++count; }
    ~Scripted() override { --count; }
    std::atomic<int>& count;
    std::shared_ptr<int> alive = std::make_shared<int>();
  };
  std::mutex mutex_;
  std::set<std::string> containers_;
  std::string files_;
};

constexpr const char* kTools = R"("tools":[{"type":"code_interpreter","container":{"type":"auto"}}])";

std::string python(const std::string& code, const std::string& id = "c1", int index = 0) {
  return fmt::format(
      R"({{"tool_calls":[{{"index":{},"id":"{}","type":"function","function":{{"name":"python","arguments":{}}}}}]}})", index,
      id, Json(Json::object({{"code", code}}).dump()).dump());
}

class CodeLoopTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(scratch_);
    upstream_.add("POST", "/v1/chat/completions",
                  [this](const http::Request& request, const http::ResponseWriterPtr& writer) { play(request, writer); });
    replica_ = std::move(http::Server::start({}, upstream_.handler()).value());
    directory_.list = {{"a-1", "m", fmt::format("http://127.0.0.1:{}", replica_->port()), true}};
    database_ = *store::open_sqlite(scratch_ / "tables.sqlite", parts_, {.fsync = false});
    gateway_ = std::make_unique<Gateway>(directory_, std::make_shared<prometheus::Registry>());
    gateway_->set_authenticator(std::make_unique<Projects>());
    runner_.gateway = gateway_.get();
    api_ = *OpenAiApi::make(*gateway_, *database_,
                            {.files = scratch_ / "files", .seal_key = std::string(32, 'k'), .code = &runner_});
    http::Router router;
    gateway_->mount(router);
    server_ = std::move(http::Server::start({}, router.handler()).value());
  }
  void TearDown() override {
    hold_ = false;
    gateway_->cancel();
    server_.reset();
    api_.reset();
    gateway_.reset();
    std::filesystem::remove_all(scratch_);
  }

  // The script's next turn: its deltas, then why it stopped. "hold" waits; "busy" is a refusal for lack of room.
  void play(const http::Request& request, const http::ResponseWriterPtr& writer) {
    std::vector<std::string> turn;
    {
      const std::scoped_lock lock(mutex_);
      bodies_.push_back(*Json::parse(request.body));
      ids_.push_back(request.headers.get("x-request-id"));
      if (turns_.empty()) return writer->respond(http::Response::json(400, Json::object({{"message", "no turn left"}})));
      turn = turns_.front();
      turns_.pop_front();
    }
    if (turn.front() == "busy") {
      const Json error = *Json::parse(R"({"error":{"message":"busy","code":"rate_limit_exceeded"}})");
      http::Response busy = http::Response::json(429, error);
      busy.headers.set("retry-after-ms", "5");
      return writer->respond(std::move(busy));
    }
    const bool calls = turn.back().find("tool_calls") != std::string::npos;
    const std::string reason = turn.back() == "length" ? "length" : calls ? "tool_calls" : "stop";
    const Json usage = *Json::parse(
        R"({"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3},)"
        R"("completion_tokens_details":{"reasoning_tokens":1}})");
    if (!bodies_.back().get_bool("stream").value_or(false)) {
      Json message = Json::object({{"role", "assistant"}});
      for (const std::string& delta : turn) {
        const auto json = Json::parse(delta);
        for (const auto& [key, value] : json ? json->members() : Json::Object()) message[key] = value;
      }
      const Json choice = Json::object({{"index", 0}, {"finish_reason", reason}, {"message", message}});
      return writer->respond(
          http::Response::json(200, Json::object({{"choices", Json::array({choice})}, {"usage", usage}})));
    }
    writer->start(200, {{"content-type", "text/event-stream"}});
    for (const std::string& delta : turn) {
      if (delta == "length") continue;
      if (delta == "break") return writer->finish();
      writer->write(http::sse_event(fmt::format(R"({{"choices":[{{"index":0,"delta":{}}}]}})", delta)));
    }
    while (hold_ && !writer->client_gone()) std::this_thread::sleep_for(1ms);
    if (writer->client_gone()) return void(left_ = true);
    writer->write(http::sse_event(
        fmt::format(R"({{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{}"}}],"usage":{}}})", reason, usage.dump())));
    writer->write(http::sse_event("[DONE]"));
    writer->finish();
  }

  http::Response post(std::string body, http::Headers headers = {}) {
    return client_
        .request(url(), {.method = "POST", .target = "/v1/responses", .headers = std::move(headers), .body = std::move(body)},
                 {})
        .value_or(http::Response{});
  }
  Json get(const std::string& target) {
    return *Json::parse(client_.request(url(), {.target = target}, {}).value().body);
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}", server_->port()); }
  static std::string ask(const std::string& more = "") {
    return fmt::format(R"({{"model":"m","input":"q",{}{}}})", kTools, more);
  }

  struct Events {
    std::string types;  // without "response." and "code_interpreter_call"
    Json last;          // response
  };
  static Events events(const std::string& body) {
    Events out;
    std::int64_t number = 0;
    EventSplitter splitter;
    splitter.feed(body, [&](std::string_view, std::string_view data) {
      const Json event = *Json::parse(data);
      EXPECT_EQ(event.get_int("sequence_number"), number++);
      std::string type = event.get_string("type")->substr(9);
      if (type.starts_with("code_interpreter_call")) type = "ci" + type.substr(21);
      out.types += type + " ";
      if (const Json* response = event.find("response")) out.last = *response;
    });
    return out;
  }
  static std::string item_types(const Json& response) {
    std::string out;
    for (const Json& item : response.find("output")->items())
      out += fmt::format("{}:{} ", *item.get_string("type"), *item.get_string("status"));
    return out;
  }
  std::string messages(std::size_t turn) const { return bodies_.at(turn).find("messages")->dump(); }
  void expect_soon(const std::function<bool()>& holds) {
    for (int i = 0; i < 5'000 && !holds(); ++i) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(holds());
  }

  const std::filesystem::path scratch_ = testing::TempDir() + "code_loop_test_" + random_hex(6);
  const std::array<const store::Tables*, 5> parts_ = {&kChatTables, &kResponseTables, &kConversationTables, &kFileTables,
                                                      &kBatchTables};
  http::Router upstream_;
  std::unique_ptr<http::Server> replica_, server_;
  Directory directory_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<Gateway> gateway_;
  ScriptedRunner runner_;
  std::unique_ptr<OpenAiApi> api_;
  http::Client client_;
  std::mutex mutex_;
  std::deque<std::vector<std::string>> turns_;
  std::vector<Json> bodies_;
  std::vector<std::string> ids_;
  std::atomic<bool> hold_{false}, left_{false};
};

TEST_F(CodeLoopTest, ImagesAreOutputsOfTheirOwnUpToABound) {
  turns_ = {{python("show")}};
  for (int i = 0; i < 4; ++i) turns_.push_back({python("many", fmt::format("m{}", i))});
  turns_.push_back({R"({"content":"done"})"});
  const Json whole = *Json::parse(post(ask(R"(,"include":["code_interpreter_call.outputs"])")).body);
  const Json::Array& output = whole.find("output")->items();
  ASSERT_EQ(output.size(), 6u);
  EXPECT_EQ(output[0].find("outputs")->dump(),
            R"([{"type":"logs","logs":"Figure 1\n"},{"type":"image","url":"data:image/png;base64,aGk="}])");
  EXPECT_NE(messages(1).find("Figure 1"), std::string::npos);
  EXPECT_EQ(messages(1).find("aGk="), std::string::npos);  // the model is not shown them
  EXPECT_EQ(output[3].find("outputs")->items().at(0).get_string("type"), "image");
  EXPECT_EQ(output[4].find("outputs")->items().at(0).get_string("logs"),
            "[images left out: 1; the response has too many bytes of them]\n");
}

TEST_F(CodeLoopTest, CodeRunsBetweenTurnsAndItsEventsComeInOrder) {
  const auto more = [](std::string_view arguments) {
    return fmt::format(R"({{"tool_calls":[{{"index":0,"function":{{"arguments":{}}}}}]}})", Json(arguments).dump());
  };
  const std::string begin =
      R"({"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"python","arguments":""}}]})";
  turns_ = {{R"({"reasoning":"hm"})", begin, more(R"({"co)"), more(R"(de":"6*)"), more(R"(7"})")},
            {python("1/0", "c2")},
            {R"({"content":"42"})"}};
  const auto answer =
      post(ask(R"(,"stream":true,"include":["code_interpreter_call.outputs"])"), {{"x-request-id", "mine"}});
  EXPECT_EQ(answer.headers.get("x-request-id"), "mine");
  const Events got = events(answer.body);
  EXPECT_EQ(got.types,
            "created in_progress "
            "output_item.added content_part.added reasoning_text.delta reasoning_text.done content_part.done "
            "output_item.done "
            "output_item.added ci.in_progress ci_code.delta ci_code.delta ci_code.done ci.interpreting ci.completed "
            "output_item.done "
            "output_item.added ci.in_progress ci_code.delta ci_code.done ci.interpreting ci.completed output_item.done "
            "output_item.added content_part.added output_text.delta output_text.done content_part.done output_item.done "
            "completed ");
  const Json::Array& output = got.last.find("output")->items();
  ASSERT_EQ(output.size(), 4u);
  EXPECT_EQ(output[1].get_string("code"), "6*7");
  EXPECT_EQ(output[1].find("outputs")->dump(), R"([{"type":"logs","logs":"<6*7>"}])");
  EXPECT_EQ(output[2].get_string("status"), "completed");  // an error in Python is an output
  EXPECT_EQ(output[1].get_string("container_id"), output[2].get_string("container_id"));
  EXPECT_EQ(got.last.find("usage")->dump(),
            R"({"input_tokens":30,"input_tokens_details":{"cached_tokens":9,"cache_write_tokens":0},"output_tokens":12,)"
            R"("output_tokens_details":{"reasoning_tokens":3},"total_tokens":42})");
  const auto turn = [&](int item, const std::string& code, const std::string& before) {
    const std::string id = *output[static_cast<std::size_t>(item)].get_string("id");
    return fmt::format(R"({{"role":"assistant","content":null,{}"tool_calls":[{{"id":"{}","type":"function","function":)"
                       R"({{"name":"python","arguments":"{{\"code\":\"{}\"}}"}}}}]}},{{"role":"tool","tool_call_id":"{}",)",
                       before, id, code, id);
  };
  EXPECT_EQ(messages(2), R"([{"role":"user","content":"q"},)" + turn(1, "6*7", R"("reasoning":"hm",)") +
                             R"("content":"<6*7>"},)" + turn(2, "1/0", "") +
                             R"("content":"ZeroDivisionError: division by zero\n"}])");
  EXPECT_EQ(ids_, (std::vector<std::string>{"mine", "mine.2", "mine.3"}));
}

TEST_F(CodeLoopTest, AConversationGoesOnInItsContainerAndOutputsAreShownOnRequest) {
  turns_ = {{python("x=1")}, {R"({"content":"set"})"}, {python("x", "c2")}, {R"({"content":"1"})"}};
  const Json first = *Json::parse(post(ask()).body);
  EXPECT_EQ(item_types(first), "code_interpreter_call:completed message:completed ");
  EXPECT_TRUE(first.find("output")->items()[0].find("outputs")->is_null());
  const std::string id = *first.get_string("id");
  EXPECT_TRUE(get("/v1/responses/" + id).find("output")->items()[0].find("outputs")->is_null());
  EXPECT_EQ(get("/v1/responses/" + id + "?include[]=code_interpreter_call.outputs")
                .find("output")
                ->items()[0]
                .find("outputs")
                ->dump(),
            R"([{"type":"logs","logs":"<x=1>"}])");
  const Json second = *Json::parse(post(ask(fmt::format(R"(,"previous_response_id":"{}")", id))).body);
  EXPECT_EQ(item_types(second), "code_interpreter_call:completed message:completed ");
  const auto container = [](const Json& response) {
    return response.find("output")->items()[0].get_string("container_id");
  };
  EXPECT_EQ(container(first), container(second));
  EXPECT_NE(messages(2).find(R"("content":"<x=1>")"), std::string::npos);
  // Another project's is not found; one whose time is over is replaced.
  EXPECT_EQ(post(fmt::format(R"({{"model":"m","input":"q","tools":[{{"type":"code_interpreter","container":"{}"}}]}})",
                             *container(first)),
                 {{"authorization", "Bearer other"}})
                .status,
            404);
  runner_.forget();
  turns_ = {{python("x")}, {R"({"content":"gone"})"}};
  const Json third = *Json::parse(post(ask(fmt::format(R"(,"previous_response_id":"{}")", id))).body);
  EXPECT_NE(container(third), container(first));
}

TEST_F(CodeLoopTest, BeyondMaxToolCallsTheModelIsAskedForAnAnswerAndFurtherCallsAreIgnored) {
  turns_ = {{python("1")}, {R"({"content":"one"})"}};
  const Json good = *Json::parse(post(ask(R"(,"max_tool_calls":1,"tool_choice":"required")")).body);
  EXPECT_EQ(good.get_string("status"), "completed");
  EXPECT_EQ(bodies_[0].get_string("tool_choice"), "required");
  EXPECT_EQ(bodies_[1].get_string("tool_choice"), "none");
  turns_ = {{python("1")}, {python("2")}};
  const Json stubborn = *Json::parse(post(ask(R"(,"max_tool_calls":1)")).body);
  EXPECT_EQ(item_types(stubborn), "code_interpreter_call:completed code_interpreter_call:incomplete ");
  EXPECT_EQ(stubborn.find("incomplete_details")->dump(), R"({"reason":"max_tool_calls"})");
  EXPECT_EQ(runner_.runs, 2);
}

TEST_F(CodeLoopTest, MaxOutputTokensHoldsOverAllTurns) {
  turns_ = {{python("1")}, {python("2")}, {python("3")}};
  const Json out = *Json::parse(post(ask(R"(,"max_output_tokens":8)")).body);
  EXPECT_EQ(bodies_[0].get_int("max_completion_tokens"), 8);
  EXPECT_EQ(bodies_[1].get_int("max_completion_tokens"), 4);
  EXPECT_EQ(bodies_.size(), 2u);
  EXPECT_EQ(out.find("incomplete_details")->dump(), R"({"reason":"max_output_tokens"})");
  turns_ = {{python("1"), "length"}};
  const Events cut = events(post(ask(R"(,"stream":true)")).body);
  EXPECT_EQ(item_types(cut.last), "code_interpreter_call:incomplete ");
  EXPECT_EQ(runner_.runs, 2);
}

TEST_F(CodeLoopTest, ACallOfTheClientsOwnFunctionEndsTheLoopBehindTheCodeOfItsTurn) {
  turns_ = {{python("1"), R"({"tool_calls":[{"index":1,"id":"f1","function":{"name":"f","arguments":"{}"}}]})"}};
  const std::string body = R"({"model":"m","input":"q","stream":true,"tools":[{"type":"function","name":"f"},)"
                           R"({"type":"code_interpreter","container":{"type":"auto"}}]})";
  const Events got = events(post(body).body);
  EXPECT_EQ(item_types(got.last), "code_interpreter_call:completed function_call:completed ");
  EXPECT_EQ(got.last.get_string("status"), "completed");
  turns_ = {{R"({"content":"done"})"}};
  const std::string next = fmt::format(
      R"({{"model":"m","previous_response_id":"{}","input":[{{"type":"function_call_output","call_id":"f1","output":"2"}}]}})",
      *got.last.get_string("id"));
  EXPECT_EQ(post(next).status, 200);
  EXPECT_NE(messages(1).find(R"("content":"<1>")"), std::string::npos);
  EXPECT_TRUE(messages(1).ends_with(R"({"role":"tool","tool_call_id":"f1","content":"2"}])"));
}

TEST_F(CodeLoopTest, AClientThatLeavesEndsTheCodeOrTheTurn) {
  turns_ = {{python("hang")}, {R"({"content":"never"})"}};
  (void)client_.request(url(), {.method = "POST", .target = "/v1/responses", .body = ask(R"(,"stream":true)")},
                        {.timeout_ms = 300});
  expect_soon([&] { return runner_.runs == 1 && runner_.under_way == 0; });
  EXPECT_EQ(bodies_.size(), 1u);
  hold_ = true;
  turns_ = {{R"({"content":"never"})"}};
  (void)client_.request(url(), {.method = "POST", .target = "/v1/responses", .body = ask(R"(,"stream":true)")},
                        {.timeout_ms = 300});
  expect_soon([&] { return left_.load(); });
}

TEST_F(CodeLoopTest, AHostThatFailsFailsTheResponseAndAPythonThatEndsDoesNot) {
  turns_ = {{python("broken")}};
  const auto whole = post(ask());
  EXPECT_EQ(whole.status, 503);
  EXPECT_NE(whole.body.find("the host is away"), std::string::npos);
  turns_ = {{python("broken")}};
  const Events stream = events(post(ask(R"(,"stream":true)")).body);
  EXPECT_TRUE(stream.types.ends_with("ci.interpreting output_item.done failed ")) << stream.types;
  EXPECT_EQ(get("/v1/responses/" + *stream.last.get_string("id")).get_string("status"), "failed");
  turns_ = {{python("exit")}, {R"({"content":"ok"})"}};
  EXPECT_EQ(item_types(*Json::parse(post(ask()).body)), "code_interpreter_call:failed message:completed ");
  turns_ = {{python("1")}, {R"({"content":"par"})", "break"}};
  const Events broken = events(post(ask(R"(,"stream":true)")).body);
  EXPECT_EQ(broken.last.get_string("status"), "failed");
  turns_ = {{python("1")}};  // the second turn is refused
  EXPECT_EQ(post(ask()).status, 400);
}

TEST_F(CodeLoopTest, ALaterTurnThatIsRefusedForLackOfRoomIsAskedAgain) {
  turns_ = {{python("1")}, {"busy"}, {"busy"}, {R"({"content":"one"})"}};
  EXPECT_EQ(item_types(*Json::parse(post(ask()).body)), "code_interpreter_call:completed message:completed ");
  EXPECT_EQ(bodies_.size(), 4u);
  EXPECT_EQ(bodies_[3].dump(), bodies_[1].dump());
  turns_ = {{"busy"}, {R"({"content":"never"})"}};  // the first is the client's to repeat
  EXPECT_EQ(post(ask()).status, 429);
}

TEST_F(CodeLoopTest, InTheBackgroundItIsFetchedAndCancelled) {
  turns_ = {{python("1")}, {R"({"content":"one"})"}};
  const Json queued = *Json::parse(post(ask(R"(,"background":true)")).body);
  EXPECT_EQ(queued.get_string("status"), "queued");
  const std::string target = "/v1/responses/" + *queued.get_string("id");
  expect_soon([&] { return get(target).get_string("status") == "completed"; });
  EXPECT_EQ(item_types(get(target)), "code_interpreter_call:completed message:completed ");
  turns_ = {{python("hang")}};
  const Json second = *Json::parse(post(ask(R"(,"background":true)")).body);
  expect_soon([&] { return runner_.under_way == 1; });
  const std::string cancel = "/v1/responses/" + *second.get_string("id") + "/cancel";
  const auto cancelled = client_.request(url(), {.method = "POST", .target = cancel}, {});
  EXPECT_EQ(Json::parse(cancelled->body)->get_string("status"), "cancelled");
  expect_soon([&] { return runner_.under_way == 0; });
}

TEST_F(CodeLoopTest, WhenItsTimeIsOverItEndsIncomplete) {
  turns_ = {{python("hang")}};
  const auto call = parse_responses_request(ask());
  ASSERT_TRUE(call);
  ResponsesCall with_container = *call;
  with_container.container = "cntr_1";
  ResponsesContext context{.id = "resp_1", .created_at = 7, .new_id = [] { return random_hex(4); }, .close = {}};
  LocalCall local;
  const auto answer = local.await(*gateway_, [&](const http::ResponseWriterPtr& writer) {
    return CodeLoop::start({.gateway = *gateway_, .runner = runner_, .keep = {}, .time_ms = 50},
                           {.call = with_container,
                            .chat = *chat_of_responses(with_container, {}, {}),
                            .answer = ResponsesAnswer(with_container, context),
                            .caller = std::make_shared<Caller>()},
                           writer, {});
  });
  const Json json = *Json::parse(answer.body);
  EXPECT_EQ(json.find("incomplete_details")->dump(), R"({"reason":"max_time"})");
  EXPECT_EQ(item_types(json), "code_interpreter_call:incomplete ");
  EXPECT_EQ(runner_.under_way, 0);
}

TEST_F(CodeLoopTest, UploadedFilesAreInTheContainerAndTheModelIsToldOfThem) {
  const auto upload = [&](const std::string& name, const std::string& content) {
    const http::Request request = upload_request(name, content, "user_data");
    return *Json::parse(client_.request(url(), request, {}).value().body)->get_string("id");
  };
  const std::string first = upload("../a.csv", "1,2"), second = upload("a.csv", "3");
  turns_ = {{python("1")}, {python("2", "c2")}, {R"({"content":"done"})"}};
  const Json whole = *Json::parse(
      post(fmt::format(R"({{"model":"m","input":"q","instructions":"Be brief.","tools":[{{"type":"code_interpreter",)"
                       R"("container":{{"type":"auto","file_ids":["{}","{}"]}}}}]}})",
                       first, second))
          .body);
  EXPECT_EQ(runner_.files(), fmt::format("a.csv=1,2 {}-a.csv=3 ", second));
  EXPECT_EQ(whole.get_string("instructions"), "Be brief.");
  EXPECT_NE(messages(0).find(fmt::format("Be brief.\\n\\nThe working directory of the python tool has these files: a.csv, "
                                         "{}-a.csv",
                                         second)),
            std::string::npos)
      << messages(0);
}

TEST_F(CodeLoopTest, WhatCannotBeServedIsRefusedWithWhatWouldBeRight) {
  const auto refusal = [&](const std::string& tools) {
    const auto answer = post(fmt::format(R"({{"model":"m","input":"q","tools":{}}})", tools));
    return fmt::format("{} {}", answer.status, Json::parse(answer.body)->find("error")->get_string("message").value_or(""));
  };
  EXPECT_EQ(refusal(R"([{"type":"code_interpreter"}])"), R"(400 'tools[0].container' is missing; give {"type": "auto"})");
  EXPECT_EQ(refusal(R"([{"type":"code_interpreter","container":"../x"}])"),
            R"(400 'tools[0].container' must be the id of a container (cntr_…) or {"type": "auto"}, not '../x')");
  EXPECT_EQ(refusal(R"([{"type":"code_interpreter","container":"cntr_none"}])"),
            "404 Container with id 'cntr_none' not found.");
  EXPECT_EQ(refusal(R"([{"type":"code_interpreter","container":{"type":"auto","memory_limit":"4g"}}])"),
            "400 'tools[0].container.memory_limit' is not served: containers have no network, and all the same memory; leave it "
            "out");
  EXPECT_EQ(refusal(R"([{"type":"code_interpreter","container":{"type":"auto","file_ids":["file-1"]}}])"),
            "404 No such File object: file-1");
  EXPECT_EQ(refusal(R"([{"type":"code_interpreter","container":{"type":"auto","file_ids":[1]}}])"),
            "400 Invalid type for 'tools[0].container.file_ids[0]': expected a string, but got integer instead.");
  EXPECT_EQ(refusal(R"([{"type":"function","name":"python"},{"type":"code_interpreter","container":{"type":"auto"}}])"),
            "400 a function named 'python' and code_interpreter cannot be told apart by the model; give the function "
            "another name");
  runner_.able = fail(Code::kUnsupported, "this host has no user namespaces");
  EXPECT_EQ(post(ask()).status, 400);
  EXPECT_NE(post(ask()).body.find("no user namespaces"), std::string::npos);
  runner_.able = fail(Code::kUnavailable, "the sandboxes' host has not started yet");
  EXPECT_EQ(post(ask()).status, 503);
  EXPECT_EQ(post(ask(), {{"authorization", "Bearer wrong"}}).status, 401);
  EXPECT_EQ(bodies_.size(), 0u);
  // The words alone are no tool.
  turns_ = {{R"({"content":"yes"})"}};
  EXPECT_EQ(post(R"({"model":"m","input":"what is code_interpreter?"})").status, 200);
}

}  // namespace
}  // namespace capstan::gateway::openai

// Goal: responses in the background are fetched, followed from any event, and cancelled, with and without their client.
#include "gateway/openai/openai_testing.h"

namespace capstan::gateway::openai {
namespace {

using namespace std::chrono_literals;

TEST_F(OpenAiTest, AResponseInTheBackgroundIsFetchedLaterOrCancelled) {
  const Json queued = post("/v1/responses", R"({"model":"m","input":"slow","background":true})");
  EXPECT_EQ(queued.get_string("status"), "queued");
  EXPECT_EQ(get("/v1/responses/" + id_of(queued)).get_string("status"), "in_progress");
  const Json cancelled = post("/v1/responses/" + id_of(queued) + "/cancel", "");
  EXPECT_EQ(cancelled.get_string("status"), "cancelled");
  const Json other = post("/v1/responses", R"({"model":"m","input":"quick","background":true})");
  EXPECT_EQ(output_text(wait_for("/v1/responses/" + id_of(other), "completed")), "re: quick");
  EXPECT_EQ(send("POST",
                 "/v1/responses/" + id_of(post("/v1/responses", R"({"model":"m","input":"x"})")) + "/cancel")
                .status,
            400);
}

// The names and numbers of events: "0 response.created\n1 …".
std::string numbered(const std::string& events) {
  std::string out;
  http::SseParser parser([&](std::string_view, std::string_view data) {
    const Json event = *Json::parse(data);
    out += fmt::format("{} {}\n", event.get_int("sequence_number").value_or(-1), event.get_string("type").value_or(""));
  });
  parser.feed(events);
  return out;
}

// The response's id, of its first event.
std::string first_id(const std::string& events) {
  const std::size_t at = events.find("data: ") + 6;
  const auto event = Json::parse(std::string_view(events).substr(at, events.find('\n', at) - at));
  return event && event->find("response") != nullptr ? event->find("response")->get_string("id").value_or("") : "";
}

TEST_F(OpenAiTest, AStreamInTheBackgroundIsFollowedFromAnyPlace) {
  const http::Response all = send("POST", "/v1/responses", R"({"model":"m","input":"quick","background":true,"stream":true})");
  EXPECT_EQ(all.headers.get("content-type"), "text/event-stream");
  EXPECT_FALSE(all.headers.get("x-request-id").empty());
  const std::string told = numbered(all.body);
  EXPECT_TRUE(told.starts_with("0 response.created\n1 response.queued\n2 response.in_progress\n3 response.output_item.added\n"))
      << told;
  EXPECT_TRUE(told.ends_with(" response.completed\n")) << told;
  const std::string id = first_id(all.body);
  const std::string target = "/v1/responses/" + id + "?stream=true";
  EXPECT_EQ(output_text(get("/v1/responses/" + id)), "re: quick");
  EXPECT_EQ(send("GET", target).body, all.body);
  EXPECT_EQ(numbered(send("GET", target + "&starting_after=2").body), told.substr(told.find("3 ")));
  EXPECT_EQ(send("GET", target + "&starting_after=99").status, 400);
  EXPECT_EQ(send("GET", target + "&starting_after=x").status, 400);
  EXPECT_EQ(send("GET", target, {}, {{"authorization", "Bearer other"}}).status, 404);
  const Json whole = post("/v1/responses", R"({"model":"m","input":"quick","background":true})");
  EXPECT_EQ(send("GET", "/v1/responses/" + id_of(whole) + "?stream=true").status, 400);
  // A replica's refusal comes as an event, and is stored.
  const std::string failed =
      send("POST", "/v1/responses", R"({"model":"m","input":"wrong","background":true,"stream":true})").body;
  EXPECT_EQ(numbered(failed), "0 response.created\n1 response.queued\n2 response.failed\n");
}

TEST_F(OpenAiTest, AStreamInTheBackgroundGoesOnWithoutItsClient) {
  http::Client client;
  std::string first;
  const auto left = client.stream(
      fmt::format("http://127.0.0.1:{}", server_->port()),
      {.method = "POST",
       .target = "/v1/responses",
       .body = R"({"model":"m","input":"slow","background":true,"stream":true})"},
      {},
      [](const http::Response&) { return true; },
      [&](std::string_view piece) {
        first += piece;
        return !first.contains("\n\n");
      });
  EXPECT_EQ(left.error().code, Code::kCancelled);
  const std::string id = first_id(first);
  hold_ = false;
  EXPECT_EQ(output_text(wait_for("/v1/responses/" + id, "completed")), "re: slow");
  EXPECT_TRUE(numbered(send("GET", "/v1/responses/" + id + "?stream=true").body).ends_with(" response.completed\n"));
  // One that is cancelled ends its streams.
  hold_ = true;
  std::string second;
  std::thread follower([&] {
    second = send("POST", "/v1/responses", R"({"model":"m","input":"slow","background":true,"stream":true})").body;
  });
  std::string other;
  for (int i = 0; i < 500 && other.empty(); ++i) {
    std::this_thread::sleep_for(5ms);
    const auto rows = database_->read("SELECT id FROM response WHERE id <> $1 AND owner = 'acme/web'", {id});
    if (rows && !rows->empty()) other = (*rows)[0].text(0);
  }
  EXPECT_EQ(post("/v1/responses/" + other + "/cancel", "").get_string("status"), "cancelled");
  follower.join();
  EXPECT_TRUE(numbered(second).starts_with("0 response.created\n1 response.queued\n")) << second;
}

}  // namespace
}  // namespace capstan::gateway::openai

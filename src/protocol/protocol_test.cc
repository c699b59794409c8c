// Goal: what is on the wire stays what docs/formats/worker-wire.md says, and nothing wrong gets in.
// Method: golden JSON texts that must read and write back equal; one refusal for each rule.
#include <gtest/gtest.h>

#include "protocol/messages.h"

namespace capstan::protocol {
namespace {

const char* const kRequest =
    R"({"worker":"h1","incarnation":"ab12","build":"cafe","epoch_seen":3,)"
    R"("resources":{"milli_cpus":2000,"memory_bytes":8000000000,"gpus":0},)"
    R"("capabilities":[{"name":"cgroup_memory","ok":false,"why":"no cgroup"}],"logs_url":"http://127.0.0.1:9000",)"
    R"("ranks":[{"job":1,"attempt":1,"rank":0,"state":"running"}],"effects_done":4,"reports":[)"
    R"({"seq":1,"type":"rank_started","job":1,"attempt":1,"rank":0,"pid":77,"port":20001},)"
    R"({"seq":2,"type":"rank_ready","job":1,"attempt":1,"rank":0,"host":"127.0.0.1","port":20001},)"
    R"({"seq":3,"type":"rank_unready","job":1,"attempt":1,"rank":0,"why":"GET /health: 500"},)"
    R"({"seq":4,"type":"rank_exited","job":1,"attempt":1,"rank":0,)"
    R"("signal":9,"oom":true,"lost":false,"stopped":false,"message":"killed"},)"
    R"({"seq":5,"type":"rank_start_failed","job":1,"attempt":2,"rank":0,"message":"port 20001 is taken","retryable":true}]})";

const char* const kAnswer =
    R"({"epoch":3,"reports_acked":5,"full":false,"effects":[)"
    R"({"id":1,"type":"start_rank","job":2,"attempt":1,"rank":1,)"
    R"("name":"train","kind":"job","tenant":"default","user":"ada",)"
    R"("command":["/bin/true"],"env":{"RANK":"1"},"workdir":"","resources":{"milli_cpus":1000,"memory_bytes":0,"gpus":0},)"
    R"("grace_ms":30000,"timeout_ms":0,"port":20002,)"
    R"("health":{"path":"/health","interval_ms":1000,"timeout_ms":2000,"start_timeout_ms":120000},)"
    R"("log_bytes_max":67108864},)"
    R"({"id":2,"type":"stop_rank","job":2,"attempt":1,"rank":0,"grace_ms":1000,"why":"cancelled"},)"
    R"({"id":3,"type":"forget_rank","job":1,"attempt":1,"rank":0}],"shutdown":false})";

TEST(Protocol, RequestReadsAndWritesBackEqual) {
  const auto request = SyncRequest::from_json(*Json::parse(kRequest));
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->reports.size(), 5u);
  EXPECT_EQ(request->to_json().dump(), kRequest);
}

TEST(Protocol, AnswerReadsAndWritesBackEqual) {
  const auto answer = SyncAnswer::from_json(*Json::parse(kAnswer));
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->effects.size(), 3u);
  EXPECT_EQ(answer->to_json().dump(), kAnswer);
}

TEST(Protocol, ASandboxNeedsNoCommandAndItsStartNamesItsSession) {
  const char* const start =
      R"({"id":1,"type":"start_rank","job":2,"attempt":1,"rank":0,"name":"workbench","kind":"sandbox","tenant":"default",)"
      R"("user":"","command":[],"env":{"A":"b"},"workdir":"","resources":{"milli_cpus":1000,"memory_bytes":5,"gpus":0},)"
      R"("grace_ms":30000,"timeout_ms":0,"port":0,"health":null,"log_bytes_max":67108864,)"
      R"("session":{"template":"base","timeout_ms":0,"allow":["pypi.org"]}})";
  const auto effect = Effect::from_json(*Json::parse(start));
  ASSERT_TRUE(effect) << effect.error().message;
  EXPECT_EQ(effect->to_json().dump(), start);
  const char* const started =
      R"({"seq":1,"type":"rank_started","job":2,"attempt":1,"rank":0,"pid":0,"session":"5e55"})";
  const auto report = Report::from_json(*Json::parse(started));
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(std::get<RankStarted>(report->body).session, "5e55");
  EXPECT_EQ(report->to_json().dump(), started);
}

TEST(Protocol, WrongMembersAreNamed) {
  const auto refusal = [](std::string_view key, Json value) {
    Json json = *Json::parse(kRequest);
    if (value.is_null()) {
      json.erase(key);
    } else {
      json[key] = std::move(value);
    }
    const auto request = SyncRequest::from_json(json);
    return request ? std::string("accepted") : request.error().message;
  };
  EXPECT_EQ(refusal("worker", 5), "'worker' must be a string, not integer");
  EXPECT_EQ(refusal("worker", ""), "'worker' and 'incarnation' must not be empty");
  EXPECT_EQ(refusal("resources", nullptr), "'resources' must be an object, not absent");
  EXPECT_EQ(refusal("effects_done", -1), "'effects_done' is -1, outside 0..9223372036854775807");
  EXPECT_EQ(refusal("reports", Json::object()), "'reports' must be an array, not object");
  EXPECT_EQ(refusal("ranks", Json::array({Json::object({{"job", 0}})})),
            "'job' is 0, outside 1..9223372036854775807");
}

TEST(Protocol, AnExitNeedsACause) {
  const auto report =
      Report::from_json(*Json::parse(R"({"seq":1,"type":"rank_exited","job":1,"attempt":1,"rank":0})"));
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().message, "rank_exited needs exit_code, signal or lost");
}

TEST(Protocol, UnknownTypesAreRefused) {
  EXPECT_FALSE(
      Report::from_json(*Json::parse(R"({"seq":1,"type":"rank_flew","job":1,"attempt":1,"rank":0})")));
  EXPECT_FALSE(
      Effect::from_json(*Json::parse(R"({"id":1,"type":"start_fire","job":1,"attempt":1,"rank":0})")));
}

}  // namespace
}  // namespace capstan::protocol

// Fuzzes what the gateway reads from the wire: SigV4's header, event streams, forms, lines of batches,
// requests of both APIs. No input may crash them; what is read must hold together.
//
// With clang: `clang++ -fsanitize=fuzzer,address -std=c++23 -DCAPSTAN_LIBFUZZER …` makes a libFuzzer target
// of it. Without, main() runs damaged copies of good inputs (base/fuzz_rounds.h).
#include <cstdint>
#include <string>
#include <vector>

#include "base/base64.h"
#include "base/fuzz_rounds.h"
#include "gateway/bedrock/converse_request.h"
#include "gateway/bedrock/event_stream.h"
#include "gateway/bedrock/sigv4.h"
#include "gateway/openai/batch_lines.h"
#include "gateway/openai/chat_delta.h"
#include "gateway/openai/responses_request.h"
#include "http/multipart.h"

namespace {

using namespace capstan;
using namespace capstan::gateway;

// Nobody who does not know the secret gets in, whatever the header says.
void check_signature(std::string_view input) {
  const auto claim = bedrock::parse_authorization(input);
  if (!claim) return must_hold(claim.error().status == 403, "a broken header is not a 403", input);
  must_hold(claim->signature.size() == 64 && !claim->signed_headers.empty(), "a claim is incomplete", input);
  const http::Request request{.method = "POST",
                              .target = "/model/m/converse",
                              .headers = {{"host", "h"}, {"x-amz-date", claim->date + "T000000Z"}}};
  must_hold(bedrock::verify(request, *claim, "a secret that no input knows", 0).has_value(),
            "a stranger was let in", input);
}

// The same frames whole and in pieces; what is read can be written again and is the same.
void check_event_stream(std::string_view input) {
  const auto read = [&](std::size_t piece) {
    bedrock::EventStreamDecoder decoder;
    std::string out;
    for (std::size_t at = 0; at < input.size(); at += piece) {
      decoder.feed(input.substr(at, piece));
      while (true) {
        const auto message = decoder.next();
        if (!message) return out + "broken";
        if (!*message) break;
        out += bedrock::encode(**message);
      }
    }
    return out;
  };
  must_hold(read(input.size() + 1) == read(3), "the cut changes the messages", input);
}

void check_forms(std::string_view input) {
  if (const auto parts = http::parse_multipart("multipart/form-data; boundary=b", input)) {
    for (const http::Part& part : *parts) {
      must_hold(!part.name.empty(), "a part has no name", input);
      must_hold(part.content.data() >= input.data() &&
                    part.content.data() + part.content.size() <= input.data() + input.size(),
                "a part lies outside of the form", input);
    }
  }
  (void)http::parse_multipart(input, "--b--");
  if (const auto lines = openai::parse_batch_lines(input, "/v1/responses")) {
    for (const openai::BatchLine& line : *lines)
      must_hold(Json::parse(line.body).has_value(), "a line's body is no JSON", input);
  }
  if (const auto bytes = base64_decode(input))
    must_hold(base64_encode(*bytes).size() == input.size(), "base64 changes its length", input);
}

void check_requests(std::string_view input) {
  (void)bedrock::chat_of_converse("m", input, true);
  (void)openai::read_chat_event(input);
  const auto call = openai::parse_responses_request(input);
  if (!call) return must_hold(call.error().status == 400, "a broken request is not a 400", input);
  const openai::ItemSources none{[](const std::string&) { return std::nullopt; },
                                 [](const std::string&) { return std::nullopt; }};
  if (const auto chat = openai::chat_of_responses(*call, {}, none))
    must_hold(Json::parse(chat->dump()).has_value(), "a chat body is no JSON", input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  check_signature(input);
  check_event_stream(input);
  check_forms(input);
  check_requests(input);
  return 0;
}

#ifndef CAPSTAN_LIBFUZZER
int main(int argc, char** argv) {
  const std::vector<std::string> seeds = {
      "AWS4-HMAC-SHA256 Credential=K/20261123/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, "
      "Signature=" +
          std::string(64, 'a'),
      bedrock::encode_event("messageStart", R"({"role":"assistant"})") +
          bedrock::encode_exception("throttlingException", "slow"),
      "--b\r\nContent-Disposition: form-data; name=\"file\"; "
      "filename=\"a\"\r\n\r\nx\r\n--b\r\ncontent-disposition: form-data; name=p\r\n\r\ny\r\n--b--\r\n",
      R"({"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m","stream":true}})",
      R"({"model":"m","instructions":"i","tools":[{"type":"function","name":"f"},{"type":"custom","name":"c"}],)"
      R"("tool_choice":{"type":"allowed_tools","tools":[{"name":"f"}]},"input":[{"role":"user",)"
      R"("content":[{"type":"input_text","text":"x"}]},{"type":"reasoning","encrypted_content":"00"},)"
      R"({"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output",)"
      R"("call_id":"c","output":"1"}]})",
      R"({"system":[{"text":"s"}],"messages":[{"role":"user","content":[{"text":"a"},{"toolResult":{"toolUseId":"t",)"
      R"("content":[{"json":{}}]}}]},{"role":"assistant","content":[{"toolUse":{"toolUseId":"t","name":"f",)"
      R"("input":{}}}]}],"toolConfig":{"tools":[{"toolSpec":{"name":"f","inputSchema":{"json":{}}}}],)"
      R"("toolChoice":{"any":{}}},"inferenceConfig":{"maxTokens":1},)"
      R"("outputConfig":{"textFormat":{"type":"json_schema","structure":{"jsonSchema":{"schema":"{}"}}}}})",
      R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f",)"
      R"("arguments":"{}"}}]},"logprobs":{"content":[]}}],"usage":{"prompt_tokens":1}})"};
  return fuzz_rounds(argc, argv, seeds, 2'000);
}
#endif

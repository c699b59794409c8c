// Fuzzes the one pass over a request's body, what the gateway writes into it, and the cutting of streams. What is read must
// be what a full parser reads, a rewritten body must say the same but for what was put in, and how a stream is cut must not
// change it.
#include <cstdint>
#include <string>

#include "base/fuzz_rounds.h"
#include "base/json.h"
#include "gateway/event_splitter.h"
#include "gateway/relay.h"
#include "gateway/request_peek.h"

namespace {

using namespace capstan;
using namespace capstan::gateway;

void check_body(std::string_view input) {
  std::string body(input);
  const auto peek = peek_request(body);
  must_hold(body == input, "peeking changes the body", input);
  if (!peek) return;
  const auto whole = Json::parse(input);
  if (!whole) return;  // what is broken inside skipped members is the replica's to refuse
  must_hold(whole->get_string("model") == peek->model, "another model is read", input);
  if (whole->find("stream") != nullptr && !whole->find("stream")->is_null())
    must_hold(whole->get_bool("stream") == peek->stream, "another stream is read", input);
  std::string asked = body;
  ask_for_usage(asked, *peek_request(asked));  // views into this copy
  const auto after = Json::parse(asked);
  must_hold(after.has_value(), "asking for usage breaks the body", input);
  must_hold(after->get_string("model") == peek->model, "asking for usage changes the model", input);
  if (!peek->include_usage)
    must_hold(after->find("stream_options")->get_bool("include_usage").value_or(false), "usage is not asked for", input);
  replace_model(body, "other \"name\"");
  const auto renamed = Json::parse(body);
  must_hold(renamed && renamed->get_string("model") == "other \"name\"", "the model is not replaced", input);
}

void check_stream(std::string_view input) {
  const auto read = [&](std::size_t piece) {
    EventSplitter splitter;
    std::string out;
    for (std::size_t at = 0; at < input.size(); at += piece) {
      (void)splitter.feed(input.substr(at, piece), [&](std::string_view raw, std::string_view data) {
        out.append(raw).append("|").append(data).append("|");
        (void)find_usage(data);
        const std::string_view none = find_no_usage(raw);
        must_hold(none.empty() || raw.contains(none), "the absent usage lies outside of the event", input);
      });
    }
    return out + std::string(splitter.unfinished());
  };
  const std::string whole = read(std::max<std::size_t>(input.size(), 1));
  for (const std::size_t piece : {1u, 7u}) must_hold(read(piece) == whole, "the cut changes the stream", input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t count) {
  const std::string_view input(reinterpret_cast<const char*>(bytes), count);
  check_body(input);
  check_stream(input);
  return 0;
}

#ifndef CAPSTAN_LIBFUZZER
int main(int argc, char** argv) {
  return fuzz_rounds(
      argc, argv,
      {R"({"model":"m","stream":true,"messages":[{"role":"user","content":"\"model\":\"x\""}],"max_tokens":5})",
       R"({"stream_options":{"include_usage":false,"a":1}, "model" : "m","n":2,"service_tier":"flex"})",
       R"({"stream_options":null,"model":"\u006d","prompt_cache_key":"k","deep":[[{"model":"y"}]]})",
       "data: {\"choices\":[],\"usage\":null}\n\n"
       "data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\r\n\r\n: c\n\ndata: [DONE]\n\n"},
      20'000);
}
#endif

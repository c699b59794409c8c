// Bedrock's names of models: ids, ARNs, inference profiles; and the names that this server may serve them
// under.
//
//   served_names("arn:aws:bedrock:us-east-1::foundation-model/openai.gpt-oss-20b-1:0")
//     → "openai.gpt-oss-20b-1:0", "gpt-oss-20b", "openai/gpt-oss-20b"
//
// Threads: pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace capstan::gateway::bedrock {

// Candidates, best first: the id as given (decoded), the id that an ARN or profile holds, and the plain name
// in it.
// Whether it could be one of Bedrock's ids or ARNs, or a name of ours.
bool is_model_id(std::string_view text);

std::vector<std::string> served_names(std::string_view model_id);
// "arn:aws:bedrock:REGION::foundation-model/ID".
std::string model_arn(std::string_view region, std::string_view model_id);

}  // namespace capstan::gateway::bedrock

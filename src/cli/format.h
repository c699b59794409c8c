// How the CLI reads answers and words amounts. Private to cli/.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "cli/cli.h"

namespace capstan::cli {

// One request to the running Capstan; a body makes it a POST.
Result<Json> request(const Globals& globals, std::string_view path, const std::optional<Json>& body = {});
Result<Json> post_yaml(const Globals& globals, std::string_view path, const std::string& file);
// Prints the answer: as it is with `-o json`, else as `print` does. The exit code.
int show(const Globals& globals, const Result<Json>& answer, const std::function<void(const Json&)>& print);

std::string text_of(const Json& json, std::string_view key);     // "" if it is not there
std::int64_t number_of(const Json& json, std::string_view key);  // 0 if it is not there
// The items of a list that is a member; none if it is not there.
const std::vector<Json>& list_of(const Json& json, std::string_view key);

std::string format_cpus(std::int64_t milli_cpus);  // "0.5", "192"
std::string format_memory(std::int64_t bytes);     // "1.5 TiB", "512 MiB"
// "8 gpus, 512 cpus, 2.0 TiB" of {"gpus","gpu_milli","milli_cpus","memory_bytes"}; what is 0 or null is left
// out, `nothing` if all is.
std::string format_amounts(const Json& amounts, std::string_view nothing);
std::string format_percent(const Json& json, std::string_view key);  // a fraction: "12.5 %"
std::string format_time(std::int64_t unix_ms);                       // "2026-11-24T09:00Z"

}  // namespace capstan::cli

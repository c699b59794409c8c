#include "cli/format.h"

#include <fmt/format.h>

#include <array>
#include <chrono>

#include "cli/commands.h"

namespace capstan::cli {

Result<Json> request(const Globals& globals, std::string_view path, const std::optional<Json>& body) {
  CAPSTAN_TRY(ApiClient api, ApiClient::connect(globals.connection));
  return body ? api.post(path, body->dump()) : api.get(path);
}

Result<Json> post_yaml(const Globals& globals, std::string_view path, const std::string& file) {
  CAPSTAN_TRY(std::string text, read_input(file));
  CAPSTAN_TRY(ApiClient api, ApiClient::connect(globals.connection));
  const bool query = path.contains('?');
  return api.post(fmt::format("{}{}source={}", path, query ? '&' : '?',
                              url_encode(file == "-" ? "standard input" : file)),
                  std::move(text), "application/yaml");
}

int show(const Globals& globals, const Result<Json>& answer, const std::function<void(const Json&)>& print) {
  if (!answer) return report(answer.error());
  if (globals.json()) {
    fmt::print("{}\n", answer->pretty());
  } else {
    print(*answer);
  }
  std::fflush(stdout);
  return kOk;
}

std::string text_of(const Json& json, std::string_view key) { return json.get_string(key).value_or(""); }

std::int64_t number_of(const Json& json, std::string_view key) { return json.get_int(key).value_or(0); }

const std::vector<Json>& list_of(const Json& json, std::string_view key) {
  static const std::vector<Json> kNone;
  const Json* list = json.find(key);
  return list != nullptr && list->is_array() ? list->items() : kNone;
}

std::string format_cpus(std::int64_t milli_cpus) {
  return fmt::format("{:g}", static_cast<double>(milli_cpus) / 1000);
}

std::string format_memory(std::int64_t bytes) {
  constexpr std::array<std::string_view, 5> kUnits{"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double amount = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; amount >= 1024 && unit + 1 < kUnits.size(); ++unit) amount /= 1024;
  return amount < 10 ? fmt::format("{:.1f} {}", amount, kUnits[unit])
                     : fmt::format("{:.0f} {}", amount, kUnits[unit]);
}

std::string format_amounts(const Json& amounts, std::string_view nothing) {
  std::vector<std::string> parts;
  const std::int64_t milli_gpus = number_of(amounts, "gpus") * 1000 + number_of(amounts, "gpu_milli");
  if (milli_gpus != 0) parts.push_back(format_cpus(milli_gpus) + (milli_gpus == 1000 ? " gpu" : " gpus"));
  if (const auto cpus = number_of(amounts, "milli_cpus"); cpus != 0)
    parts.push_back(format_cpus(cpus) + (cpus == 1000 ? " cpu" : " cpus"));
  if (const auto bytes = number_of(amounts, "memory_bytes"); bytes != 0)
    parts.push_back(format_memory(bytes));
  return parts.empty() ? std::string(nothing) : fmt::format("{}", fmt::join(parts, ", "));
}

std::string format_percent(const Json& json, std::string_view key) {
  return fmt::format("{:.1f} %", json.get_double(key).value_or(0) * 100);
}

std::string format_time(std::int64_t unix_ms) {
  const std::chrono::sys_time<std::chrono::milliseconds> at{std::chrono::milliseconds(unix_ms)};
  const auto day = std::chrono::floor<std::chrono::days>(at);
  const std::chrono::year_month_day date(day);
  const auto minutes = std::chrono::floor<std::chrono::minutes>(at - day).count();
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), minutes / 60,
                     minutes % 60);
}

}  // namespace capstan::cli

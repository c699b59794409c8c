#include "apps/sim_output.h"

#include <fmt/format.h>

#include <cstdio>

#include "base/file.h"
#include "sim/report.h"

namespace capstan::apps {
namespace {

bool write(const std::string& path, const std::string& text) {
  const auto written = write_file_atomic(path, text);
  if (!written) fmt::print(stderr, "capstan: {}\n", written.error().message);
  return written.has_value();
}

}  // namespace

bool write_results(const std::vector<sim::Results>& runs, const std::string& json, const std::string& report) {
  bool well = true;
  if (!json.empty()) {
    Json list = Json::array();
    for (const sim::Results& one : runs) list.push_back(sim::to_json(one));
    const std::string text = Json::object({{"runs", std::move(list)}}).dump();
    if (json == "-") {
      fmt::print("{}\n", text);
    } else {
      well = write(json, text);
    }
  }
  if (!report.empty()) well = write(report, sim::report_html(runs)) && well;
  return well;
}

}  // namespace capstan::apps

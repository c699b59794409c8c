// Reports of runs: for the terminal, and as one HTML file that needs nothing else.
//
//   fmt::print("{}", summary(runs));
//   write(report_html(runs));
//
// Several runs are variants of one scenario, or seeds, or both: they stand side by side. The HTML holds the numbers as JSON and a
// small script that draws them (lines, stacked areas, values under the pointer; light and dark; prints well). Names are escaped.
// Pure.  Cost: O(points).
#pragma once

#include <string>
#include <vector>

#include "sim/results.h"

namespace capstan::sim {

std::string summary(const std::vector<Results>& runs);
std::string report_html(const std::vector<Results>& runs);

}  // namespace capstan::sim

// Results of `capstan sim`, to files and to stdout.
#pragma once

#include <string>
#include <vector>

#include "sim/results.h"

namespace capstan::apps {

// As JSON to one file and as HTML to another; "" is neither, "-" of the JSON is stdout. False: something could not be
// written, and stderr says what.
bool write_results(const std::vector<sim::Results>& runs, const std::string& json, const std::string& report);

}  // namespace capstan::apps

// Tables for people: columns padded to their widest cell, the last one never cut.
//
//   Table table({"NAME", "KIND", "STATE"});
//   table.add({"train", "job", "running"});
//   std::fputs(table.text().c_str(), stdout);
#pragma once

#include <string>
#include <vector>

namespace capstan::cli {

class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void add(std::vector<std::string> row);  // as many cells as the header has
  std::string text() const;                // header only if there is no row

 private:
  std::vector<std::vector<std::string>> rows_;
};

// "3s", "12m", "5h", "2d": how long ago, as people say it.
std::string format_age(long long milliseconds);

}  // namespace capstan::cli

// DomainBitmap: a set of small dense numbers that finds the next member from any place on.
//
//   bitmap.insert(7); bitmap.next(0);   // 7
//
// Pages of 4,096 numbers, made when first needed, with a summary bit a word and a page: `next` looks at a few
// words whatever the size. Memory: 520 bytes for each page that holds a member (freed when it is empty).
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <vector>

namespace capstan::scheduler {

class DomainBitmap {
 public:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  void insert(std::uint32_t value) {
    const std::uint32_t page = value >> 12;
    if (page >= pages_.size()) {
      pages_.resize(page + 1);
      summary_.resize(page / 64 + 1);
    }
    if (!pages_[page]) pages_[page] = std::make_unique<Page>();
    const std::uint32_t word = value >> 6 & 63;
    pages_[page]->words[word] |= std::uint64_t{1} << (value & 63);
    pages_[page]->used |= std::uint64_t{1} << word;
    summary_[page / 64] |= std::uint64_t{1} << (page % 64);
  }

  void erase(std::uint32_t value) {
    const std::uint32_t page = value >> 12, word = value >> 6 & 63;
    if (page >= pages_.size() || !pages_[page]) return;
    Page& row = *pages_[page];
    row.words[word] &= ~(std::uint64_t{1} << (value & 63));
    if (row.words[word] != 0) return;
    row.used &= ~(std::uint64_t{1} << word);
    if (row.used != 0) return;
    pages_[page].reset();
    summary_[page / 64] &= ~(std::uint64_t{1} << (page % 64));
  }

  bool empty() const {
    for (const std::uint64_t word : summary_) {
      if (word != 0) return false;
    }
    return true;
  }

  // The smallest member that is at least `from`; kNone if there is none.
  std::uint32_t next(std::uint32_t from) const {
    std::uint32_t page = from >> 12;
    if (page < pages_.size() && pages_[page]) {
      const std::uint32_t found = next_in(*pages_[page], from & 4'095);
      if (found != kNone) return (page << 12) + found;
    }
    for (++page; page / 64 < summary_.size();) {
      const std::uint64_t rest = summary_[page / 64] >> (page % 64);
      if (rest == 0) {
        page = (page / 64 + 1) * 64;
        continue;
      }
      page += static_cast<std::uint32_t>(std::countr_zero(rest));
      return (page << 12) + next_in(*pages_[page], 0);
    }
    return kNone;
  }

 private:
  struct Page {
    std::array<std::uint64_t, 64> words{};
    std::uint64_t used = 0;
  };
  static std::uint32_t next_in(const Page& page, std::uint32_t from) {
    std::uint32_t word = from >> 6;
    const std::uint64_t here = page.words[word] >> (from & 63);
    if (here != 0) return from + static_cast<std::uint32_t>(std::countr_zero(here));
    if (word == 63) return kNone;
    const std::uint64_t later = page.used >> (word + 1);
    if (later == 0) return kNone;
    word += 1 + static_cast<std::uint32_t>(std::countr_zero(later));
    return (word << 6) + static_cast<std::uint32_t>(std::countr_zero(page.words[word]));
  }

  std::vector<std::unique_ptr<Page>> pages_;
  std::vector<std::uint64_t> summary_;  // a bit a page
};

}  // namespace capstan::scheduler

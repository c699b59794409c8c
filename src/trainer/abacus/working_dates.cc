// Days between two dates: each date becomes its number of days since 2000-01-01, and the smaller is
// subtracted.
//
//   2024-03-05 to 2024-11-23
//   2024-03-05 L E0D8C7B6A6 060+05=R0Q6P5 1a1 1b2 0c8 0d8 0e0
//              |     |          |            8766 + 65 by columns: carry, place, digit
//              |     |          days of the months before March in a leap year, plus the day
//              |     days from 2000-01-01 to the first of January, known by heart, as the months are
//              leap year (N: not)
#include <algorithm>
#include <array>

#include "trainer/abacus/places.h"
#include "trainer/abacus/working.h"

namespace capstan::trainer::abacus {
namespace {

constexpr int kDayWidth = 5;
constexpr std::array<int, 12> kDaysBeforeMonth = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};

std::int64_t days_before_year(int year) { return 365 * (year - 2000) + (year - 2000 + 3) / 4; }

struct Letters {
  char year, in_year, result;
};

std::string date_line(const Date& date, const Letters& letters) {
  const bool leap = date.year % 4 == 0;
  const int months =
      kDaysBeforeMonth[static_cast<std::size_t>(date.month - 1)] + (leap && date.month > 2 ? 1 : 0);
  const std::int64_t before = days_before_year(date.year);
  const int in_year = months + date.day;
  std::string text = iso_date(date) + (leap ? " L " : " N ") + labelled(before, kDayWidth, letters.year);
  text += " " + padded(months, 3) + "+" + padded(date.day, 2) + "=" + labelled(in_year, 3, letters.in_year);
  int carry = 0;
  for (int place = 0; place < kDayWidth; ++place) {
    const int sum = digit_at(before, place) + digit_at(in_year, place) + carry;
    carry = sum / 10;
    text += ' ';
    append_digit(text, carry);
    text += static_cast<char>(letters.result + place);
    append_digit(text, sum % 10);
  }
  return text;
}

}  // namespace

std::string work_days(std::int64_t from_day, std::int64_t to_day) {
  const Date from = date_of_day(from_day), to = date_of_day(to_day);
  std::string text = iso_date(from) + " to " + iso_date(to) + "\n";
  text += date_line(from, {.year = 'A', .in_year = 'P', .result = 'a'}) + "\n";
  text += date_line(to, {.year = 'G', .in_year = 'U', .result = 'g'}) + "\n";
  const LabelledNumber first{from_day + 1, 'a'}, second{to_day + 1, 'g'};  // January 1 is day 1 of its year
  const Scan scan = scan_places(first, second, kDayWidth);
  text += scan.text + "\n";
  text += scan.order > 0 ? subtract_columns(first, second, kDayWidth, 'p')
                         : subtract_columns(second, first, kDayWidth, 'p');
  const std::int64_t days = std::max(from_day, to_day) - std::min(from_day, to_day);
  return text + "\n" + labelled(days, kDayWidth, 'p') + "\n" + with_unit(days, "days");
}

}  // namespace capstan::trainer::abacus

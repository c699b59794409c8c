// Tables of the generators.
//
// kPhillySizes: jobs of Microsoft's Philly cluster that were submitted until October 2017, by their number of GPUs; durations as
// quantiles, the tail in small steps, since it holds most of the GPU time. Source: msr-fiddle/philly-traces (CC BY 4.0; Jeon et
// al., USENIX ATC 2019) in the subset that is published with the Sia artifact; sizes of less than 20 jobs are left out.
// The curves are made up: a working day with a dip at noon, and an assistant that is used most in the evening.
#include "sim/generators.h"

namespace capstan::sim {
namespace {

constexpr std::int64_t kShares[] = {0, 100, 250, 500, 750, 900, 950, 980, 990, 995, 999, 1000};

SizeClass size_class(std::int64_t gpus, std::int64_t weight, const std::array<std::int64_t, std::size(kShares)>& seconds) {
  SizeClass out{gpus, weight, {}};
  for (std::size_t i = 0; i < seconds.size(); ++i) out.work.push_back({kShares[i], seconds[i] * 1000});
  return out;
}

}  // namespace

const std::vector<SizeClass>& philly_sizes() {
  static const std::vector<SizeClass> sizes = {
      size_class(1, 50188, {1, 65, 275, 1477, 2753, 7231, 14782, 62776, 113693, 240097, 1041059, 3256045}),
      size_class(2, 904, {2, 11, 14, 19, 321, 174007, 273350, 510066, 786523, 1152159, 1521148, 2582803}),
      size_class(4, 945, {19, 149, 700, 26950, 97025, 221766, 465635, 906798, 1192621, 1665046, 2641566, 2750674}),
      size_class(8, 713, {17, 436, 5670, 106099, 231337, 493505, 695888, 1083118, 2010727, 2214025, 2658784, 4628226}),
      size_class(16, 65, {32, 118, 354, 52548, 246825, 511238, 622377, 1152387, 1369876, 1369876, 1369876, 1710643}),
      size_class(32, 23, {345, 418, 47159, 52774, 55625, 59941, 64338, 71514, 71514, 71514, 71514, 104218})};
  return sizes;
}

const DailyCurve kOfficeHours = {200, 150, 120, 100,  100, 120, 200, 350, 600, 850, 1000, 950,
                                 800, 900, 980, 1000, 950, 850, 700, 550, 450, 400, 350,  280};
const DailyCurve kConsumers = {450, 320, 230, 180, 160, 180, 250, 380, 520,  640, 720, 760,
                               780, 770, 780, 800, 820, 850, 900, 960, 1000, 980, 850, 640};

}  // namespace capstan::sim

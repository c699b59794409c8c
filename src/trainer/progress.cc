// How it works: an exponential average over about 20 steps smooths speed and the time that is left. Every
// line is flushed, so that a log that is followed shows it at once.
#include "trainer/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace capstan::trainer {
namespace {

void print_line(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

std::string count_text(double count) {
  if (count >= 1e6) return fmt::format("{:.2f}M", count / 1e6);
  if (count >= 1e3) return fmt::format("{:.1f}k", count / 1e3);
  return fmt::format("{:.0f}", count);
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::uint64_t>(seconds + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}m {:02}s", whole / 60, whole % 60);
  return fmt::format("{}h {:02}m", whole / 3600, whole / 60 % 60);
}

void Progress::start(const RunFacts& facts) {
  print_line(
      fmt::format("{} parameters, {}, {} rank{}, {} steps", count_text(static_cast<double>(facts.parameters)),
                  facts.bf16 ? "bf16 products" : "f32", facts.ranks, facts.ranks == 1 ? "" : "s", steps_));
  if (facts.resumed) print_line(fmt::format("resumed from the checkpoint of step {}", facts.step));
}

void Progress::step(const StepLine& line, bool print) {
  constexpr double kNewestMin = 0.05;
  const double speed = static_cast<double>(line.tokens) / line.seconds;
  const double newest = averaged_ <= 1 ? 1.0 : std::max(kNewestMin, 1.0 / static_cast<double>(averaged_));
  averaged_ += 1;
  seconds_per_step_ = (1 - newest) * seconds_per_step_ + newest * line.seconds;
  tokens_per_second_ = (1 - newest) * tokens_per_second_ + newest * speed;
  if (!print) return;
  print_line(fmt::format(
      "step {:>6}/{}  loss {:.4f}  accuracy {:5.1f}%  lr {:.1e}  norm {:.2f}  {} tokens/s  {} left",
      line.step, steps_, line.loss, 100 * line.accuracy, line.rate, line.norm, count_text(tokens_per_second_),
      duration_text(seconds_per_step_ * static_cast<double>(steps_ - line.step))));
}

void Progress::evaluation(std::uint64_t step, double loss, double accuracy, double exact) {
  print_line(fmt::format("step {:>6}/{}  held out: loss {:.4f}  accuracy {:5.1f}%  exact {:5.1f}%", step,
                         steps_, loss, 100 * accuracy, 100 * exact));
}

void Progress::note(const std::string& text) { print_line(text); }

}  // namespace capstan::trainer

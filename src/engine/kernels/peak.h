// What the processor can do at most with the instruction that packed products are made of: measured, so that a benchmark can
// tell its figures as shares of it.
#pragma once

namespace capstan::engine {

// Multiplications of 8-bit integers a second, each added to a sum, by so many threads at once with the instruction set in
// use, from registers alone; the best of ten runs of some 5 ms. 0 for the scalar set, which has no such instruction.
// Products of 15-bit inputs reach half of it at most.
double peak_multiplications(int threads);

}  // namespace capstan::engine

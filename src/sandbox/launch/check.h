// Tries what a sandbox needs of this kernel, each in a child of its own, and says what it found.
#pragma once

namespace capstan::sandbox {

// Prints "name<tab>yes or no<tab>what was found", a line each, to standard output; 0.
int print_checks();

// Writes the filter for a network ("none", "namespace") to standard output, as the kernel takes it; 0, or 2
// for another name.
int print_filter(const char* network);

}  // namespace capstan::sandbox

// capstan-shim: the small parent of one rank (worker/shim/shim.h). Started by the worker only.
#include "worker/shim/shim.h"

int main() { return capstan::shim::run_shim(); }

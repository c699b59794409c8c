// The kernels as compiled for one instruction set; the flags are in CMakeLists.txt.
#define CAPSTAN_KERNEL_TARGET baseline
#include "trainer/model/kernels-inl.h"

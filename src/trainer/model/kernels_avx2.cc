// The kernels as compiled for one instruction set; the flags are in CMakeLists.txt.
#define CAPSTAN_KERNEL_TARGET avx2
#include "trainer/model/kernels-inl.h"

// The kernels as compiled for one instruction set; the flags are in CMakeLists.txt.
#define CAPSTAN_KERNEL_TARGET avx512
#include "trainer/model/kernels-inl.h"

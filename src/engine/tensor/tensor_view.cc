#include "engine/tensor/tensor_view.h"

#include <array>

namespace capstan::engine {
namespace {

struct DTypeRow {
  std::string_view name;
  int bytes;
  int block = 1;
};
constexpr std::array<DTypeRow, 17> kRows{{{"BOOL", 1},
                                          {"U8", 1},
                                          {"I8", 1},
                                          {"F8_E5M2", 1},
                                          {"F8_E4M3", 1},
                                          {"I16", 2},
                                          {"U16", 2},
                                          {"F16", 2},
                                          {"BF16", 2},
                                          {"I32", 4},
                                          {"U32", 4},
                                          {"F32", 4},
                                          {"F64", 8},
                                          {"I64", 8},
                                          {"U64", 8},
                                          {"MXFP4", 17, 32},
                                          {"Q8_0", 34, 32}}};

}  // namespace

std::string_view dtype_name(DType type) { return kRows[static_cast<std::size_t>(type)].name; }
int dtype_bytes(DType type) { return kRows[static_cast<std::size_t>(type)].bytes; }
int dtype_block(DType type) { return kRows[static_cast<std::size_t>(type)].block; }

std::uint64_t TensorView::elements() const {
  return bytes.size() / static_cast<std::uint64_t>(dtype_bytes(dtype)) *
         static_cast<std::uint64_t>(dtype_block(dtype));
}

std::string TensorView::shape_text() const {
  std::string text = "[";
  for (const std::uint64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

}  // namespace capstan::engine

// A hash map from shape to a oneDNN matmul primitive with its memory objects; a run only sets the data
// pointers.
//
// The primitives compute on the calling thread: oneDNN's OpenMP team is held to one thread while this runs,
// because one process is one rank and the ranks share the machine.
#include "trainer/model/gemm.h"

#include <dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "base/assert.h"
#include "base/prng.h"

extern "C" void omp_set_num_threads(int threads);

namespace capstan::trainer {
namespace {

struct ShapeHash {
  std::size_t operator()(const GemmShape& s) const {
    std::uint64_t hash = 0;
    for (int value : {s.m, s.n, s.k, s.lda, s.ldb, s.ldc})
      hash = Prng::mix(hash * 31 + static_cast<unsigned>(value));
    const unsigned flags = s.a_transposed | s.b_transposed << 1 | s.bias << 2 | s.accumulate << 3 |
                           static_cast<unsigned>(s.in) << 4 | static_cast<unsigned>(s.out) << 5;
    return Prng::mix(hash * 31 + flags);
  }
};

struct Product {
  dnnl::matmul primitive;
  dnnl::memory a, b, bias, c, scratch;
  std::vector<dnnl_exec_arg_t> arguments;
};

dnnl::memory::data_type type_of(Element element) {
  return element == Element::kBf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

dnnl::memory::desc matrix(int rows, int columns, Element element, bool transposed, int stride) {
  const dnnl::memory::dims strides =
      transposed ? dnnl::memory::dims{1, stride} : dnnl::memory::dims{stride, 1};
  return {{rows, columns}, type_of(element), strides};
}

}  // namespace

struct Gemm::State {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::unordered_map<GemmShape, std::unique_ptr<Product>, ShapeHash> products;
  std::vector<std::uint64_t> scratch;

  std::unique_ptr<Product> make(const GemmShape& s) {
    const auto a = matrix(s.m, s.k, s.in, s.a_transposed, s.lda);
    const auto b = matrix(s.k, s.n, s.in, s.b_transposed, s.ldb);
    const auto c = matrix(s.m, s.n, s.out, false, s.ldc);
    const auto bias = matrix(1, s.n, Element::kF32, false, s.n);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (s.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const dnnl::matmul::desc operation =
        s.bias ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
    const dnnl::matmul::primitive_desc primitive(operation, attributes, engine);
    auto memory = [&](const dnnl::memory::desc& desc) { return dnnl::memory(desc, engine, nullptr); };
    const auto scratch_desc = primitive.scratchpad_desc();
    scratch.resize(std::max(scratch.size(), scratch_desc.get_size() / 8 + 8));
    auto product = std::make_unique<Product>(Product{
        dnnl::matmul(primitive), memory(a), memory(b), memory(bias), memory(c), memory(scratch_desc), {}});
    product->arguments = {{DNNL_ARG_SRC, product->a.get()},
                          {DNNL_ARG_WEIGHTS, product->b.get()},
                          {DNNL_ARG_DST, product->c.get()},
                          {DNNL_ARG_SCRATCHPAD, product->scratch.get()}};
    if (s.bias) product->arguments.push_back({DNNL_ARG_BIAS, product->bias.get()});
    return product;
  }
};

Gemm::Gemm() {
  omp_set_num_threads(1);
  state_ = std::make_unique<State>();
}
Gemm::~Gemm() = default;

void Gemm::run(const GemmShape& shape, const void* a, const void* b, const float* bias, void* c) {
  CAPSTAN_ASSERT(shape.m > 0 && shape.n > 0 && shape.k > 0 && shape.bias == (bias != nullptr));
  std::unique_ptr<Product>& slot = state_->products[shape];
  if (!slot) slot = state_->make(shape);
  auto set = [](dnnl::memory& memory, const void* data) {
    dnnl_memory_set_data_handle(memory.get(), const_cast<void*>(data));
  };
  set(slot->a, a);
  set(slot->b, b);
  set(slot->c, c);
  if (bias != nullptr) set(slot->bias, bias);
  set(slot->scratch, state_->scratch.data());
  const dnnl_status_t status =
      dnnl_primitive_execute(slot->primitive.get(), state_->stream.get(),
                             static_cast<int>(slot->arguments.size()), slot->arguments.data());
  CAPSTAN_ASSERT(status == dnnl_success);
}

bool Gemm::has_bf16() {
  return dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core && __builtin_cpu_supports("avx512bw");
}

}  // namespace capstan::trainer

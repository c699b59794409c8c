// Values are drawn, rounded to the storage type, and kept as the doubles that the stored bits stand for.
#include "engine/testing/random_checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <numbers>

#include "base/assert.h"
#include "base/json.h"
#include "base/prng.h"

namespace capstan::engine::testing {
namespace {

using Row = std::vector<double>;

constexpr double kFp4[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6};

void append(std::string& bytes, const void* data, std::size_t count) {
  bytes.append(static_cast<const char*>(data), count);
}

// Stores `value` and returns what the stored bits stand for. F16 covers normal numbers only, which is all we
// draw.
double store(const std::string& dtype, double value, std::string& bytes) {
  const float f = static_cast<float>(value);
  if (dtype == "F32") {
    append(bytes, &f, 4);
    return f;
  }
  if (dtype == "BF16") {
    const auto bits = static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(f) + 0x8000u) >> 16);
    append(bytes, &bits, 2);
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  CAPSTAN_ASSERT(dtype == "F16");
  int exponent = 0;
  const double mantissa = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
  if (value == 0 || exponent < -12) {
    append(bytes, "\0\0", 2);
    return 0;
  }
  const int whole = std::min(2047, static_cast<int>(std::lround(mantissa * 2048)));  // in [1024, 2047]
  const auto bits = static_cast<std::uint16_t>((value < 0) << 15 | (exponent + 14) << 10 | (whole - 1024));
  append(bytes, &bits, 2);
  return std::copysign(std::ldexp(whole, exponent - 11), value);
}

// Every 32 values become whole multiples, up to 127, of one f16.
void round_to_q8_0(Row& values) {
  CAPSTAN_ASSERT(values.size() % 32 == 0);
  for (auto block = values.begin(); block != values.end(); block += 32) {
    double most = 0;
    for (int i = 0; i < 32; ++i) most = std::max(most, std::fabs(block[i]));
    const double scale = static_cast<double>(static_cast<_Float16>(static_cast<float>(most / 127)));
    for (int i = 0; i < 32; ++i) block[i] = std::clamp(std::round(block[i] / scale), -127.0, 127.0) * scale;
  }
}

double dot(const double* weights, const Row& x) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += weights[i] * x[i];
  return sum;
}

// W x + b, W (rows, x.size()).
Row linear(const Row& weights, const Row* bias, const Row& x, std::size_t offset = 0, std::size_t rows = 0,
           std::size_t bias_offset = 0) {
  if (rows == 0) rows = weights.size() / x.size();
  Row out(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    out[r] = dot(&weights[offset + r * x.size()], x) + (bias != nullptr ? (*bias)[bias_offset + r] : 0);
  }
  return out;
}

Row rms_norm(const Row& x, const Row& weight) {
  double squares = 0;
  for (double v : x) squares += v * v;
  const double scale = 1 / std::sqrt(squares / x.size() + 1e-5);
  Row out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
  return out;
}

// Rotates one head's vector to `position`.
void rope(double* x, int dim, int position, const CheckpointOptions& options) {
  const int half = dim / 2;
  for (int i = 0; i < half; ++i) {
    double frequency = std::pow(150000.0, -2.0 * i / dim);
    double concentration = 1;
    if (options.yarn) {
      const auto bound = [&](double rotations) {
        return half * std::log(4096 / (2 * std::numbers::pi * rotations)) / std::log(150000.0);
      };
      const double low = options.truncate ? std::floor(bound(32)) : bound(32);
      const double high = options.truncate ? std::ceil(bound(1)) : bound(1);
      const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
      frequency = frequency * (1 - ramp) + frequency / 32 * ramp;
      concentration = 0.1 * std::log(32.0) + 1;
    }
    const double c = std::cos(position * frequency) * concentration;
    const double s = std::sin(position * frequency) * concentration;
    const double a = x[i], b = x[i + half];
    x[i] = a * c - b * s;
    x[i + half] = b * c + a * s;
  }
}

}  // namespace

RandomCheckpoint::RandomCheckpoint(CheckpointOptions options)
    : options_(std::move(options)), state_(options_.seed) {
  const auto& o = options_;
  const std::uint64_t hidden = o.hidden, q_dim = o.heads * o.head_dim, kv_dim = o.kv_heads * o.head_dim;
  const std::uint64_t vocab = o.vocab, experts = o.experts, inner = o.intermediate;
  add("model.embed_tokens.weight", {vocab, hidden}, 1.5);
  add("model.norm.weight", {hidden}, 0.3, 1);
  if (!o.tied) add("lm_head.weight", {vocab, hidden}, 0.5);
  for (int layer = 0; layer < o.layers; ++layer) {
    const std::string p = "model.layers." + std::to_string(layer) + ".";
    add(p + "input_layernorm.weight", {hidden}, 0.3, 1);
    add(p + "post_attention_layernorm.weight", {hidden}, 0.3, 1);
    add(p + "self_attn.q_proj.weight", {q_dim, hidden}, 0.3);
    add(p + "self_attn.q_proj.bias", {q_dim}, 0.5);
    add(p + "self_attn.k_proj.weight", {kv_dim, hidden}, 0.3);
    add(p + "self_attn.k_proj.bias", {kv_dim}, 0.5);
    add(p + "self_attn.v_proj.weight", {kv_dim, hidden}, 0.3);
    add(p + "self_attn.v_proj.bias", {kv_dim}, 0.5);
    add(p + "self_attn.o_proj.weight", {hidden, q_dim}, 0.1);
    add(p + "self_attn.o_proj.bias", {hidden}, 0.2);
    add(p + "self_attn.sinks", {static_cast<std::uint64_t>(o.heads)}, 2);
    add(p + "mlp.router.weight", {experts, hidden}, 0.3);
    add(p + "mlp.router.bias", {experts}, 0.5);
    add_experts(p + "mlp.experts.gate_up_proj", 2 * o.intermediate, o.hidden, 0.6);
    add(p + "mlp.experts.gate_up_proj_bias", {experts, 2 * inner}, 1);
    add_experts(p + "mlp.experts.down_proj", o.hidden, o.intermediate, 0.1);
    add(p + "mlp.experts.down_proj_bias", {experts, hidden}, 0.2);
  }
}

// In (-1, 1).
double RandomCheckpoint::uniform() {
  const std::uint64_t bits = Prng::at(options_.seed, state_++);
  return static_cast<double>(bits >> 11) * 0x1p-52 - 1;
}

void RandomCheckpoint::add(const std::string& name, std::vector<std::uint64_t> shape, double spread,
                           double center) {
  std::uint64_t count = 1;
  for (std::uint64_t size : shape) count *= size;
  Tensor tensor{options_.dense_storage, std::move(shape), {}};
  Row& values = values_[name];
  Row drawn;
  for (std::uint64_t i = 0; i < count; ++i) drawn.push_back(center + spread * uniform());
  if (options_.q8_0_grid && tensor.shape.size() == 2 && !name.contains("mlp.")) round_to_q8_0(drawn);
  for (const double value : drawn) values.push_back(store(tensor.dtype, value, tensor.bytes));
  tensors_[name] = std::move(tensor);
}

void RandomCheckpoint::add_experts(const std::string& name, int rows, int cols, double spread) {
  if (options_.experts_storage == "MXFP4") return add_mxfp4(name, rows, cols, spread);
  const std::uint64_t experts = options_.experts;
  Tensor tensor{options_.experts_storage,
                {experts, static_cast<std::uint64_t>(cols), static_cast<std::uint64_t>(rows)},
                {}};
  Row& values = values_[name];
  values.resize(experts * rows * cols);
  for (std::uint64_t e = 0; e < experts; ++e) {
    for (int c = 0; c < cols; ++c) {
      for (int r = 0; r < rows; ++r) {
        values[(e * rows + r) * cols + c] = store(tensor.dtype, spread * uniform(), tensor.bytes);
      }
    }
  }
  tensors_[name] = std::move(tensor);
}

void RandomCheckpoint::add_mxfp4(const std::string& name, int rows, int cols, double spread) {
  const std::uint64_t experts = options_.experts, blocks = cols / 32;
  Tensor data{"U8", {experts, static_cast<std::uint64_t>(rows), blocks, 16}, {}};
  Tensor scales{"U8", {experts, static_cast<std::uint64_t>(rows), blocks}, {}};
  Row& values = values_[name];
  const int base = 127 + static_cast<int>(std::floor(std::log2(spread / 6)));
  for (std::uint64_t block = 0; block < experts * rows * blocks; ++block) {
    const int scale = base + (uniform() > 0 ? 1 : 0);
    scales.bytes.push_back(static_cast<char>(scale));
    for (int i = 0; i < 16; ++i) {
      const int byte = static_cast<int>((uniform() + 1) * 128) & 255;
      data.bytes.push_back(static_cast<char>(byte));
      values.push_back(std::ldexp(kFp4[byte & 15], scale - 127));
      values.push_back(std::ldexp(kFp4[byte >> 4], scale - 127));
    }
  }
  tensors_[name + "_blocks"] = std::move(data);
  tensors_[name + "_scales"] = std::move(scales);
}

std::string RandomCheckpoint::config_json() const {
  const auto& o = options_;
  Json json = Json::object({{"model_type", "gpt_oss"},
                            {"num_hidden_layers", o.layers},
                            {"hidden_size", o.hidden},
                            {"intermediate_size", o.intermediate},
                            {"head_dim", o.head_dim},
                            {"num_attention_heads", o.heads},
                            {"num_key_value_heads", o.kv_heads},
                            {"num_local_experts", o.experts},
                            {"num_experts_per_tok", o.experts_per_token},
                            {"vocab_size", o.vocab},
                            {"sliding_window", o.window},
                            {"max_position_embeddings", 131072},
                            {"rms_norm_eps", 1e-5},
                            {"rope_theta", 150000},
                            {"swiglu_limit", 7.0},
                            {"tie_word_embeddings", o.tied},
                            {"eos_token_id", o.vocab - 1},
                            {"rope_scaling", nullptr}});
  if (o.yarn) {
    json["rope_scaling"] = Json::object({{"rope_type", "yarn"},
                                         {"factor", 32.0},
                                         {"beta_fast", 32.0},
                                         {"beta_slow", 1.0},
                                         {"original_max_position_embeddings", 4096},
                                         {"truncate", o.truncate}});
  }
  if (o.layer_types) {
    Json types = Json::array();
    for (int i = 0; i < o.layers; ++i) types.push_back(i % 2 == 0 ? "sliding_attention" : "full_attention");
    json["layer_types"] = std::move(types);
  }
  return json.pretty();
}

std::string RandomCheckpoint::safetensors(int shard) const {
  Json header = Json::object({{"__metadata__", Json::object({{"format", "pt"}})}});
  std::string data;
  int index = 0;
  for (const auto& [name, tensor] : tensors_) {
    if (index++ % options_.shards != shard) continue;
    Json shape = Json::array();
    for (std::uint64_t size : tensor.shape) shape.push_back(size);
    header[name] =
        Json::object({{"dtype", tensor.dtype},
                      {"shape", std::move(shape)},
                      {"data_offsets", Json::array({data.size(), data.size() + tensor.bytes.size()})}});
    data += tensor.bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(text.size() >> (8 * i)));
  return file + text + data;
}

void RandomCheckpoint::write(const std::filesystem::path& directory) const {
  const auto save = [&](const std::string& name, const std::string& bytes) {
    std::ofstream file(directory / name, std::ios::binary);
    file << bytes;
    file.close();
    CAPSTAN_ASSERT(file.good());
  };
  save("config.json", config_json());
  if (options_.shards == 1) return save("model.safetensors", safetensors());
  Json index = Json::object({{"weight_map", Json::object()}});
  for (int shard = 0; shard < options_.shards; ++shard) {
    save("model-" + std::to_string(shard) + ".safetensors", safetensors(shard));
  }
  int number = 0;
  for (const auto& [name, tensor] : tensors_) {
    index["weight_map"][name] = "model-" + std::to_string(number++ % options_.shards) + ".safetensors";
  }
  save("model.safetensors.index.json", index.dump());
}

std::vector<std::string> RandomCheckpoint::gguf(const GgufExport& how) const {
  std::map<std::string, StoredTensor> tensors;
  for (const auto& [key, tensor] : tensors_) tensors[key] = {tensor.dtype, tensor.shape, tensor.bytes};
  return gguf_of(*Json::parse(config_json()), tensors, how);
}

std::filesystem::path RandomCheckpoint::write_gguf(const std::filesystem::path& directory, const GgufExport& how,
                                                   const std::string& name) const {
  const auto parts = gguf(how);
  std::filesystem::path first;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string part = parts.size() == 1 ? "" : fmt::format("-{:05}-of-{:05}", i + 1, parts.size());
    const auto path = directory / (name + part + ".gguf");
    std::ofstream file(path, std::ios::binary);
    file << parts[i];
    file.close();
    CAPSTAN_ASSERT(file.good());
    if (i == 0) first = path;
  }
  return first;
}

std::vector<std::int32_t> RandomCheckpoint::random_tokens(int count, std::uint64_t seed) const {
  Prng prng(seed);
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>(prng.below(options_.vocab)));
  return tokens;
}

std::vector<double> RandomCheckpoint::logits(const std::vector<std::int32_t>& tokens) const {
  std::vector<Row> x;
  const Row& embedding = values_.at("model.embed_tokens.weight");
  for (std::int32_t token : tokens) {
    const auto begin = embedding.begin() + static_cast<std::ptrdiff_t>(token) * options_.hidden;
    x.emplace_back(begin, begin + options_.hidden);
  }
  for (int layer = 0; layer < options_.layers; ++layer) {
    attention(layer, x);
    for (Row& row : x) experts(layer, row);
  }
  std::vector<double> out;
  const Row& head = options_.tied ? embedding : values_.at("lm_head.weight");
  for (const Row& row : x) {
    const Row logits = linear(head, nullptr, rms_norm(row, values_.at("model.norm.weight")));
    out.insert(out.end(), logits.begin(), logits.end());
  }
  return out;
}

void RandomCheckpoint::attention(int layer, std::vector<Row>& x) const {
  const auto& o = options_;
  const std::string p = "model.layers." + std::to_string(layer) + ".";
  const auto weight = [&](const std::string& name) -> const Row& { return values_.at(p + name); };
  std::vector<Row> q, k, v;
  for (std::size_t t = 0; t < x.size(); ++t) {
    const Row h = rms_norm(x[t], weight("input_layernorm.weight"));
    q.push_back(linear(weight("self_attn.q_proj.weight"), &weight("self_attn.q_proj.bias"), h));
    k.push_back(linear(weight("self_attn.k_proj.weight"), &weight("self_attn.k_proj.bias"), h));
    v.push_back(linear(weight("self_attn.v_proj.weight"), &weight("self_attn.v_proj.bias"), h));
    for (int i = 0; i < o.heads; ++i) rope(&q[t][i * o.head_dim], o.head_dim, static_cast<int>(t), o);
    for (int i = 0; i < o.kv_heads; ++i) rope(&k[t][i * o.head_dim], o.head_dim, static_cast<int>(t), o);
  }
  const int dim = o.head_dim;
  for (int t = 0; t < static_cast<int>(x.size()); ++t) {
    Row attended(o.heads * dim, 0);
    for (int head = 0; head < o.heads; ++head) {
      const int kv = head / (o.heads / o.kv_heads) * dim;
      double total = std::exp(weight("self_attn.sinks")[head]);
      for (int j = layer % 2 == 0 ? std::max(0, t - o.window + 1) : 0; j <= t; ++j) {
        double score = 0;
        for (int i = 0; i < dim; ++i) score += q[t][head * dim + i] * k[j][kv + i];
        const double mass = std::exp(score / std::sqrt(static_cast<double>(dim)));
        total += mass;
        for (int i = 0; i < dim; ++i) attended[head * dim + i] += mass * v[j][kv + i];
      }
      for (int i = 0; i < dim; ++i) attended[head * dim + i] /= total;
    }
    const Row out = linear(weight("self_attn.o_proj.weight"), &weight("self_attn.o_proj.bias"), attended);
    for (int i = 0; i < o.hidden; ++i) x[t][i] += out[i];
  }
}

void RandomCheckpoint::experts(int layer, Row& x) const {
  const auto& o = options_;
  const std::string p = "model.layers." + std::to_string(layer) + ".";
  const Row h = rms_norm(x, values_.at(p + "post_attention_layernorm.weight"));
  const Row scores = linear(values_.at(p + "mlp.router.weight"), &values_.at(p + "mlp.router.bias"), h);
  std::vector<int> order(o.experts);
  for (int e = 0; e < o.experts; ++e) order[e] = e;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
  order.resize(o.experts_per_token);
  double total = 0;
  for (int e : order) total += std::exp(scores[e]);
  const std::size_t inner = o.intermediate, hidden = o.hidden;
  for (int e : order) {
    const std::string mlp = p + "mlp.experts.";
    const Row u = linear(values_.at(mlp + "gate_up_proj"), &values_.at(mlp + "gate_up_proj_bias"), h,
                         e * 2 * inner * hidden, 2 * inner, e * 2 * inner);
    Row a(inner);
    for (std::size_t i = 0; i < inner; ++i) {
      const double gate = std::min(u[2 * i], 7.0), up = std::clamp(u[2 * i + 1], -7.0, 7.0);
      a[i] = gate / (1 + std::exp(-1.702 * gate)) * (up + 1);
    }
    const Row y = linear(values_.at(mlp + "down_proj"), &values_.at(mlp + "down_proj_bias"), a,
                         e * hidden * inner, hidden, e * hidden);
    for (std::size_t i = 0; i < hidden; ++i) x[i] += std::exp(scores[e]) / total * y[i];
  }
}

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "capstan-engine-XXXXXX").string();
  CAPSTAN_ASSERT(mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace capstan::engine::testing

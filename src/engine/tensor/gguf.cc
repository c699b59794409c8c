// A file is: "GGUF", u32 version, u64 tensors, u64 keys; the keys with their typed values; the tensors' names,
// dimensions (innermost first), types and offsets; padding; data. A Cursor reads it and never leaves it.
#include "engine/tensor/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "base/text.h"

namespace capstan::engine {
namespace {

constexpr std::uint64_t kAlignmentMax = 1 << 20;
constexpr std::uint32_t kDimensionsMax = 4;
constexpr std::uint64_t kKeyBytesMax = 65'535;  // the format's own bound
constexpr std::uint64_t kNameBytesMax = 64;      // ggml's bound
constexpr std::uint32_t kSplitsMax = 99'999;

constexpr std::array<std::uint8_t, 13> kTypeBytes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};

// The types that others use, so that an error can name what a file has.
constexpr std::pair<std::uint32_t, std::string_view> kOtherTypes[] = {
    {2, "Q4_0"},  {3, "Q4_1"},  {6, "Q5_0"},     {7, "Q5_1"},     {9, "Q8_1"},     {10, "Q2_K"},    {11, "Q3_K"},
    {12, "Q4_K"}, {13, "Q5_K"}, {14, "Q6_K"},    {15, "Q8_K"},    {16, "IQ2_XXS"}, {17, "IQ2_XS"},  {18, "IQ3_XXS"},
    {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},  {23, "IQ4_XS"},  {24, "I8"},      {25, "I16"},
    {26, "I32"},  {27, "I64"},  {28, "F64"},     {29, "IQ1_M"},   {34, "TQ1_0"},   {35, "TQ2_0"},   {40, "NVFP4"}};

class Cursor {
 public:
  Cursor(std::span<const std::uint8_t> file, std::string_view label) : file_(file), label_(label) {}

  std::uint64_t at() const { return at_; }
  std::uint64_t left() const { return file_.size() - at_; }

  template <class T>
  Result<T> read(std::string_view what) {
    if (left() < sizeof(T)) return cut(what);
    T value;
    std::memcpy(&value, file_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  Result<std::span<const std::uint8_t>> bytes(std::uint64_t count, std::string_view what) {
    if (left() < count) return cut(what, count);
    const auto out = file_.subspan(at_, count);
    at_ += count;
    return out;
  }
  Result<std::string_view> string(std::uint64_t bytes_max, std::string_view what) {
    CAPSTAN_TRY(const std::uint64_t length, read<std::uint64_t>(what));
    if (length > bytes_max)
      return fail(Code::kCorrupt, "{}: {} at byte {} has a length of {} bytes; at most {} are allowed", label_, what,
                  at_ - 8, length, bytes_max);
    CAPSTAN_TRY(const auto text, bytes(length, what));
    return std::string_view(reinterpret_cast<const char*>(text.data()), text.size());
  }

 private:
  std::unexpected<Error> cut(std::string_view what, std::uint64_t wanted = 0) const {
    return fail(Code::kCorrupt, "{}: {} at byte {} {}leaves the file's {} bytes (is the file cut short?)", label_, what,
                at_, wanted > 0 ? fmt::format("needs {} bytes and ", wanted) : "", file_.size());
  }

  std::span<const std::uint8_t> file_;
  std::string_view label_;
  std::uint64_t at_ = 0;
};

template <class Stored, class Kept>
Result<GgufValue> read_number(Cursor& cursor, std::string_view what) {
  CAPSTAN_TRY(const Stored value, cursor.read<Stored>(what));
  return GgufValue(static_cast<Kept>(value));
}

class Parser {
 public:
  Parser(std::span<const std::uint8_t> file, std::string_view label)
      : file_(file), label_(label), cursor_(file, label) {}

  Result<GgufContents> run() {
    std::uint64_t tensors = 0, keys = 0;
    CAPSTAN_CHECK(head(tensors, keys));
    for (std::uint64_t i = 0; i < keys; ++i) CAPSTAN_CHECK(key_value(i));
    CAPSTAN_CHECK(alignment());
    std::vector<Info> infos;
    infos.reserve(tensors);
    for (std::uint64_t i = 0; i < tensors; ++i) {
      CAPSTAN_TRY(Info info, tensor_info(i));
      infos.push_back(std::move(info));
    }
    CAPSTAN_CHECK(place(std::move(infos)));
    return std::move(contents_);
  }

 private:
  struct Info {
    std::string name;
    TensorView view;
    std::uint64_t bytes = 0, offset = 0;
  };

  Result<void> head(std::uint64_t& tensors, std::uint64_t& keys) {
    const auto magic = cursor_.bytes(4, "the magic");
    if (!magic || std::memcmp(magic->data(), "GGUF", 4) != 0)
      return fail(Code::kCorrupt, "{}: is no GGUF file: its first bytes are not 'GGUF'", label_);
    CAPSTAN_TRY(const auto version, cursor_.read<std::uint32_t>("the version"));
    if (version != 2 && version != 3)
      return fail(Code::kUnsupported, "{}: GGUF version {}{}; this engine reads versions 2 and 3, little-endian",
                  label_, version, version == 2u << 24 || version == 3u << 24 ? " (big-endian)" : "");
    CAPSTAN_TRY(tensors, cursor_.read<std::uint64_t>("the number of tensors"));
    CAPSTAN_TRY(keys, cursor_.read<std::uint64_t>("the number of keys"));
    // A key takes 13 bytes or more, a tensor 32.
    if (tensors > cursor_.left() / 32 || keys > cursor_.left() / 13)
      return fail(Code::kCorrupt, "{}: the header promises {} tensors and {} keys; the file's {} bytes cannot hold them",
                  label_, tensors, keys, file_.size());
    return {};
  }

  Result<void> key_value(std::uint64_t index) {
    CAPSTAN_TRY(const auto name, cursor_.string(kKeyBytesMax, fmt::format("the name of key {}", index)));
    const std::string what = fmt::format("key '{}'", printable(name));
    CAPSTAN_TRY(const auto type, cursor_.read<std::uint32_t>(what));
    CAPSTAN_TRY(GgufValue value, read_value(type, what));
    if (!contents_.metadata.add(std::string(name), value))
      return fail(Code::kCorrupt, "{}: {} stands twice", label_, what);
    return {};
  }

  Result<GgufValue> read_value(std::uint32_t type, std::string_view what) {
    switch (static_cast<GgufType>(type)) {
      case GgufType::kU8:
        return read_number<std::uint8_t, std::uint64_t>(cursor_, what);
      case GgufType::kI8:
        return read_number<std::int8_t, std::int64_t>(cursor_, what);
      case GgufType::kU16:
        return read_number<std::uint16_t, std::uint64_t>(cursor_, what);
      case GgufType::kI16:
        return read_number<std::int16_t, std::int64_t>(cursor_, what);
      case GgufType::kU32:
        return read_number<std::uint32_t, std::uint64_t>(cursor_, what);
      case GgufType::kI32:
        return read_number<std::int32_t, std::int64_t>(cursor_, what);
      case GgufType::kU64:
        return read_number<std::uint64_t, std::uint64_t>(cursor_, what);
      case GgufType::kI64:
        return read_number<std::int64_t, std::int64_t>(cursor_, what);
      case GgufType::kF32:
        return read_number<float, double>(cursor_, what);
      case GgufType::kF64:
        return read_number<double, double>(cursor_, what);
      case GgufType::kBool: {
        CAPSTAN_TRY(const auto byte, cursor_.read<std::uint8_t>(what));
        if (byte > 1) return fail(Code::kCorrupt, "{}: {} is a bool of value {}; 0 or 1 would be right", label_, what, byte);
        return GgufValue(byte == 1);
      }
      case GgufType::kString: {
        CAPSTAN_TRY(const auto text, cursor_.string(cursor_.left(), what));
        return GgufValue(text);
      }
      case GgufType::kArray:
        return read_array(what);
    }
    return fail(Code::kCorrupt, "{}: {} has type {}; GGUF's types are 0 to 12", label_, what, type);
  }

  Result<GgufValue> read_array(std::string_view what) {
    CAPSTAN_TRY(const auto type, cursor_.read<std::uint32_t>(what));
    CAPSTAN_TRY(const auto count, cursor_.read<std::uint64_t>(what));
    if (type >= kTypeBytes.size() || static_cast<GgufType>(type) == GgufType::kArray)
      return fail(Code::kCorrupt, "{}: {} is an array of type {}; numbers, bools and strings (not 9) would be right",
                  label_, what, type);
    const std::uint64_t each = kTypeBytes[type];  // of a string: its length alone
    if (count > cursor_.left() / each)
      return fail(Code::kCorrupt, "{}: {} is an array of {} items; the {} bytes that are left cannot hold them", label_,
                  what, count, cursor_.left());
    const std::uint64_t begin = cursor_.at();
    if (static_cast<GgufType>(type) == GgufType::kString) {
      for (std::uint64_t i = 0; i < count; ++i) CAPSTAN_CHECK(cursor_.string(cursor_.left(), what));
    } else {
      CAPSTAN_CHECK(cursor_.bytes(count * each, what));
    }
    return GgufValue(GgufArray{static_cast<GgufType>(type), count, file_.subspan(begin, cursor_.at() - begin)});
  }

  Result<void> alignment() {
    if (contents_.metadata.find("general.alignment") == nullptr) return {};
    const auto value = contents_.metadata.integer("general.alignment");
    if (!value || *value < 8 || static_cast<std::uint64_t>(*value) > kAlignmentMax ||
        !std::has_single_bit(static_cast<std::uint64_t>(*value)))
      return fail(Code::kCorrupt, "{}: key 'general.alignment' must be a power of two in 8..{}{}", label_, kAlignmentMax,
                  value ? fmt::format(", not {}", *value) : "");
    alignment_ = static_cast<std::uint64_t>(*value);
    return {};
  }

  Result<Info> tensor_info(std::uint64_t index) {
    Info info;
    CAPSTAN_TRY(const auto name, cursor_.string(kNameBytesMax, fmt::format("the name of tensor {}", index)));
    info.name = name;
    const std::string what = fmt::format("tensor '{}'", printable(name));
    CAPSTAN_TRY(const auto dimensions, cursor_.read<std::uint32_t>(what));
    if (dimensions < 1 || dimensions > kDimensionsMax)
      return fail(Code::kCorrupt, "{}: {} has {} dimensions; 1 to {} would be right", label_, what, dimensions,
                  kDimensionsMax);
    std::uint64_t elements = 1;
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      CAPSTAN_TRY(const auto size, cursor_.read<std::uint64_t>(what));
      if (size == 0 || __builtin_mul_overflow(elements, size, &elements))
        return fail(Code::kCorrupt, "{}: {}: dimension {} is {}, which makes {} numbers", label_, what, i, size,
                    size == 0 ? "no" : "more than 2^64");
      info.view.shape.insert(info.view.shape.begin(), size);
    }
    CAPSTAN_TRY(const auto type, cursor_.read<std::uint32_t>(what));
    CAPSTAN_TRY(info.view.dtype, dtype_of(type, what));
    const auto block = static_cast<std::uint64_t>(dtype_block(info.view.dtype));
    if (info.view.shape.back() % block != 0)
      return fail(Code::kCorrupt, "{}: {} has rows of {} numbers; {} needs a multiple of {}", label_, what,
                  info.view.shape.back(), dtype_name(info.view.dtype), block);
    if (__builtin_mul_overflow(elements / block, static_cast<std::uint64_t>(dtype_bytes(info.view.dtype)), &info.bytes))
      return fail(Code::kCorrupt, "{}: {}: shape {} overflows 64 bits", label_, what, info.view.shape_text());
    CAPSTAN_TRY(info.offset, cursor_.read<std::uint64_t>(what));
    if (info.offset % alignment_ != 0)
      return fail(Code::kCorrupt, "{}: {}: offset {} is no multiple of the alignment {}", label_, what, info.offset,
                  alignment_);
    return info;
  }

  Result<DType> dtype_of(std::uint32_t type, std::string_view what) {
    switch (type) {
      case 0:
        return DType::kF32;
      case 1:
        return DType::kF16;
      case 8:
        return DType::kQ8_0;
      case 30:
        return DType::kBf16;
      case 39:
        return DType::kMxfp4;
      default:
        break;
    }
    for (const auto& [number, name] : kOtherTypes) {
      if (number == type)
        return fail(Code::kUnsupported, "{}: {} is {}; this engine reads F32, F16, BF16, Q8_0 and MXFP4", label_, what,
                    name);
    }
    return fail(Code::kCorrupt, "{}: {} has the unknown type {}; known are F32, F16, BF16, Q8_0 and MXFP4", label_, what,
                type);
  }

  Result<void> place(std::vector<Info> infos) {
    const std::uint64_t begin = (cursor_.at() + alignment_ - 1) / alignment_ * alignment_;
    const std::uint64_t size = begin < file_.size() ? file_.size() - begin : 0;
    std::ranges::sort(infos, {}, &Info::offset);
    std::uint64_t end = 0;
    for (Info& info : infos) {
      if (info.offset > size || info.bytes > size - info.offset)
        return fail(Code::kCorrupt,
                    "{}: tensor '{}': {} {} at offset {} needs {} bytes; the file has {} bytes of data (is it cut short?)",
                    label_, printable(info.name), dtype_name(info.view.dtype), info.view.shape_text(), info.offset,
                    info.bytes, size);
      if (info.offset < end)
        return fail(Code::kCorrupt, "{}: tensor '{}' at offset {} overlaps the one before it, which ends at {}", label_,
                    printable(info.name), info.offset, end);
      end = info.offset + info.bytes;
      info.view.bytes = file_.subspan(begin + info.offset, info.bytes);
      if (!contents_.tensors.emplace(info.name, std::move(info.view)).second)
        return fail(Code::kCorrupt, "{}: tensor '{}' stands twice", label_, printable(info.name));
    }
    return {};
  }

  // For messages: what a hostile name may hold stays out of logs and terminals.
  static std::string printable(std::string_view text) {
    std::string out(text.substr(0, 80));
    for (char& c : out) {
      if (c < 32 || c > 126) c = '?';
    }
    return out;
  }

  std::span<const std::uint8_t> file_;
  std::string_view label_;
  Cursor cursor_;
  std::uint64_t alignment_ = 32;
  GgufContents contents_;
};

// Of "name-00002-of-00003.gguf": "name" and 3.
struct Split {
  std::string stem;
  std::uint32_t count = 0;
};
std::optional<Split> split_of(const std::filesystem::path& path) {
  const std::string name = path.stem().string();
  constexpr std::string_view kShape = "-00000-of-00000";
  if (name.size() <= kShape.size()) return std::nullopt;
  const std::string_view tail = std::string_view(name).substr(name.size() - kShape.size());
  for (std::size_t i = 0; i < kShape.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    if (kShape[i] == '0' ? !digit : tail[i] != kShape[i]) return std::nullopt;
  }
  return Split{name.substr(0, name.size() - kShape.size()),
               static_cast<std::uint32_t>(parse_int(tail.substr(10)).value_or(0))};
}

}  // namespace

Result<GgufContents> parse_gguf(std::span<const std::uint8_t> file, std::string_view label) {
  return Parser(file, label).run();
}

Result<std::vector<std::filesystem::path>> gguf_parts(const std::filesystem::path& path) {
  const auto split = split_of(path);
  if (!split) return std::vector{path};
  if (split->count == 0 || split->count > kSplitsMax)
    return fail(Code::kInvalid, "{}: its name counts {} parts", path.string(), split->count);
  std::vector<std::filesystem::path> parts;
  for (std::uint32_t i = 1; i <= split->count; ++i) {
    parts.push_back(path.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", split->stem, i, split->count));
    std::error_code ignored;
    if (!std::filesystem::exists(parts.back(), ignored))
      return fail(Code::kNotFound, "{} is missing: {} has {} parts", parts.back().string(), split->stem, split->count);
  }
  return parts;
}

Result<Gguf> Gguf::open(const std::filesystem::path& path) {
  CAPSTAN_TRY(const auto parts, gguf_parts(path));
  Gguf result;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    CAPSTAN_TRY(MappedFile mapping, MappedFile::open(parts[i]));
    const std::string label = parts[i].string();
    CAPSTAN_TRY(GgufContents part, parse_gguf(mapping.bytes(), label));
    const auto number = part.metadata.integer("split.no").value_or(0);
    const auto count = part.metadata.integer("split.count").value_or(1);
    if (static_cast<std::size_t>(number) != i || static_cast<std::size_t>(std::max<std::int64_t>(count, 1)) != parts.size())
      return fail(Code::kCorrupt, "{}: keys split.no and split.count say part {} of {}; the name says {} of {}", label,
                  number + 1, count, i + 1, parts.size());
    if (i == 0) result.contents_.metadata = std::move(part.metadata);
    for (auto& [name, view] : part.tensors) {
      if (!result.contents_.tensors.emplace(name, std::move(view)).second)
        return fail(Code::kCorrupt, "{}: tensor '{}' stands in an earlier part already", label, name);
    }
    result.file_bytes_ += mapping.bytes().size();
    result.mappings_.push_back(std::move(mapping));
  }
  if (const auto total = result.metadata().integer("split.tensors.count");
      total && static_cast<std::uint64_t>(*total) != result.contents_.tensors.size())
    return fail(Code::kCorrupt, "{}: key 'split.tensors.count' says {} tensors; the parts have {}", path.string(), *total,
                result.contents_.tensors.size());
  return result;
}

const TensorView* Gguf::find(std::string_view name) const {
  const auto found = contents_.tensors.find(name);
  return found == contents_.tensors.end() ? nullptr : &found->second;
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

std::optional<std::string_view> GgufMetadata::string(std::string_view key) const {
  const GgufValue* value = find(key);
  const auto* text = value == nullptr ? nullptr : std::get_if<std::string_view>(value);
  return text == nullptr ? std::nullopt : std::optional(*text);
}

std::optional<std::int64_t> GgufMetadata::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<std::int64_t>(value)) return *number;
  const auto* number = std::get_if<std::uint64_t>(value);
  if (number == nullptr || *number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    return std::nullopt;
  return static_cast<std::int64_t>(*number);
}

std::optional<double> GgufMetadata::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<double>(value)) return *number;
  const auto whole = integer(key);
  return whole ? std::optional(static_cast<double>(*whole)) : std::nullopt;
}

std::optional<bool> GgufMetadata::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  const auto* flag = value == nullptr ? nullptr : std::get_if<bool>(value);
  return flag == nullptr ? std::nullopt : std::optional(*flag);
}

std::optional<std::vector<std::string_view>> GgufMetadata::strings(std::string_view key) const {
  const GgufValue* value = find(key);
  const auto* array = value == nullptr ? nullptr : std::get_if<GgufArray>(value);
  if (array == nullptr || array->type != GgufType::kString) return std::nullopt;
  std::vector<std::string_view> out;
  out.reserve(array->count);
  const std::uint8_t* at = array->bytes.data();
  for (std::uint64_t i = 0; i < array->count; ++i) {
    std::uint64_t length;
    std::memcpy(&length, at, 8);
    out.emplace_back(reinterpret_cast<const char*>(at) + 8, length);
    at += 8 + length;
  }
  return out;
}

std::optional<std::vector<std::int64_t>> GgufMetadata::integers(std::string_view key) const {
  const GgufValue* value = find(key);
  const auto* array = value == nullptr ? nullptr : std::get_if<GgufArray>(value);
  if (array == nullptr) return std::nullopt;
  std::vector<std::int64_t> out(array->count);
  const auto fill = [&]<class T>(T) {
    for (std::uint64_t i = 0; i < array->count; ++i) {
      T number;
      std::memcpy(&number, array->bytes.data() + i * sizeof(T), sizeof(T));
      out[i] = static_cast<std::int64_t>(number);
    }
  };
  switch (array->type) {
    case GgufType::kU8:
      fill(std::uint8_t{});
      break;
    case GgufType::kI8:
      fill(std::int8_t{});
      break;
    case GgufType::kU16:
      fill(std::uint16_t{});
      break;
    case GgufType::kI16:
      fill(std::int16_t{});
      break;
    case GgufType::kU32:
      fill(std::uint32_t{});
      break;
    case GgufType::kI32:
      fill(std::int32_t{});
      break;
    case GgufType::kU64:
      fill(std::uint64_t{});
      break;
    case GgufType::kI64:
      fill(std::int64_t{});
      break;
    default:
      return std::nullopt;
  }
  return out;
}

}  // namespace capstan::engine

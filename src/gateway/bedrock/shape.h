// The shape of a request as Bedrock's service model states it, and the check against it.
//
//   static constexpr Shape kTopP{.kind = Shape::kFloat, .least = 0, .most = 1};
//   static constexpr Member kMembers[] = {{"topP", kTopP}, …};
//   CAPSTAN_CHECK(check_shape(kConverse, body));   // kInvalid: "1 validation error detected: Value at 'topP'
//   …"
//
// Shapes are constants that name each other. Absent and null are the same. A structure may have members that
// are not listed here: services may have learnt more than their clients. A union may not, and has exactly
// one. Threads: pure.  Cost: one walk over what is listed.  Source: botocore's bedrock-runtime 2023-09-30,
// the wording of Amazon's services.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/json.h"

namespace capstan::gateway::bedrock {

struct Member;

struct Shape {
  enum Kind { kString, kBlob, kInteger, kFloat, kBoolean, kDocument, kList, kMap, kStructure, kUnion };
  Kind kind = kString;
  double least = 0, most = 1e18;  // of a number its value; of the others their characters or items
  std::span<const std::string_view> values = {};          // of an enumeration
  bool (*allows)(unsigned char) = nullptr;                // of each character
  std::string_view pattern = {};                          // how `allows` is told
  std::span<const Member> members = {};                   // of structures and unions
  const Shape* item = nullptr;                            // of lists and maps
};

struct Member {
  std::string_view name;
  const Shape& shape;
  bool required = false;
};

Result<void> check_shape(const Shape& shape, const Json& value);

extern const Shape kConverseShape;  // the body of Converse and ConverseStream

}  // namespace capstan::gateway::bedrock

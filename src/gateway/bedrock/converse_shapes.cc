// Converse's request as the service model has it, from the leaves to the root. What is not listed is refused later with
// its reason (guardrails, videos, audio) or means nothing here.
#include "gateway/bedrock/shape.h"

namespace capstan::gateway::bedrock {
namespace {

using enum Shape::Kind;
using Names = const std::string_view[];

constexpr bool is_name(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}
constexpr bool is_id(unsigned char c) { return is_name(c) || c == '.' || c == ':'; }

constexpr Shape kText{};
constexpr Shape kFilledText{.least = 1};
constexpr Shape kFlag{.kind = kBoolean};
constexpr Shape kAny{.kind = kDocument};
constexpr Shape kBytes{.kind = kBlob};
constexpr Shape kFilledBytes{.kind = kBlob, .least = 1};
constexpr Shape kToolName{.least = 1, .most = 64, .allows = is_name, .pattern = "[a-zA-Z0-9_-]+"};
constexpr Shape kToolId{.least = 1, .most = 64, .allows = is_id, .pattern = "[a-zA-Z0-9_.:-]+"};

constexpr Names kCacheTypes = {"default"};
constexpr Names kCacheTtls = {"5m", "1h"};
constexpr Shape kCacheType{.values = kCacheTypes};
constexpr Shape kCacheTtl{.values = kCacheTtls};
constexpr Member kCacheMembers[] = {{"type", kCacheType, true}, {"ttl", kCacheTtl}};
constexpr Shape kCachePoint{.kind = kStructure, .members = kCacheMembers};

constexpr Names kImageFormats = {"png", "jpeg", "gif", "webp"};
constexpr Shape kImageFormat{.values = kImageFormats};
constexpr Member kImageSources[] = {{"bytes", kFilledBytes}, {"s3Location", kAny}};
constexpr Shape kImageSource{.kind = kUnion, .members = kImageSources};
constexpr Member kImageMembers[] = {{"format", kImageFormat, true}, {"source", kImageSource, true}};
constexpr Shape kImage{.kind = kStructure, .members = kImageMembers};

constexpr Names kDocumentFormats = {"pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"};
constexpr Shape kDocumentFormat{.values = kDocumentFormats};
constexpr Shape kDocumentName{.least = 1, .most = 200};
constexpr Member kTextMember[] = {{"text", kText}};
constexpr Shape kTextBlock{.kind = kUnion, .members = kTextMember};
constexpr Shape kTextBlocks{.kind = kList, .item = &kTextBlock};
constexpr Member kDocumentSources[] = {
    {"bytes", kFilledBytes}, {"s3Location", kAny}, {"text", kText}, {"content", kTextBlocks}};
constexpr Shape kDocumentSource{.kind = kUnion, .members = kDocumentSources};
constexpr Member kDocumentMembers[] = {{"format", kDocumentFormat},
                                       {"name", kDocumentName, true},
                                       {"source", kDocumentSource, true},
                                       {"context", kText}};
constexpr Shape kDocumentBlock{.kind = kStructure, .members = kDocumentMembers};

constexpr Member kFoundTextMembers[] = {{"text", kText, true}};
constexpr Shape kFoundText{.kind = kStructure, .members = kFoundTextMembers};
constexpr Shape kFoundTexts{.kind = kList, .item = &kFoundText};
constexpr Member kSearchMembers[] = {{"source", kText, true}, {"title", kText, true}, {"content", kFoundTexts, true}};
constexpr Shape kSearchResult{.kind = kStructure, .members = kSearchMembers};

constexpr Member kUseMembers[] = {{"toolUseId", kToolId, true}, {"name", kToolName, true}, {"input", kAny, true}};
constexpr Shape kToolUse{.kind = kStructure, .members = kUseMembers};
constexpr Member kResultBlocks[] = {{"json", kAny},   {"text", kText}, {"image", kImage}, {"document", kDocumentBlock},
                                    {"video", kAny}, {"searchResult", kSearchResult}};
constexpr Shape kResultBlock{.kind = kUnion, .members = kResultBlocks};
constexpr Shape kResultContent{.kind = kList, .item = &kResultBlock};
constexpr Names kStatuses = {"success", "error"};
constexpr Shape kStatus{.values = kStatuses};
constexpr Member kResultMembers[] = {
    {"toolUseId", kToolId, true}, {"content", kResultContent, true}, {"status", kStatus}};
constexpr Shape kToolResult{.kind = kStructure, .members = kResultMembers};

constexpr Member kThoughtMembers[] = {{"text", kText, true}, {"signature", kText}};
constexpr Shape kThought{.kind = kStructure, .members = kThoughtMembers};
constexpr Member kReasoningMembers[] = {{"reasoningText", kThought}, {"redactedContent", kBytes}};
constexpr Shape kReasoning{.kind = kUnion, .members = kReasoningMembers};

constexpr Member kGuardTextMembers[] = {{"text", kText, true}};
constexpr Shape kGuardText{.kind = kStructure, .members = kGuardTextMembers};
constexpr Member kGuardMembers[] = {{"text", kGuardText}, {"image", kImage}};
constexpr Shape kGuardContent{.kind = kUnion, .members = kGuardMembers};

constexpr Member kCitationsMembers[] = {{"content", kTextBlocks}};
constexpr Shape kCitations{.kind = kStructure, .members = kCitationsMembers};

constexpr Member kBlockMembers[] = {{"text", kText},
                                    {"image", kImage},
                                    {"document", kDocumentBlock},
                                    {"video", kAny},
                                    {"audio", kAny},
                                    {"toolUse", kToolUse},
                                    {"toolResult", kToolResult},
                                    {"guardContent", kGuardContent},
                                    {"cachePoint", kCachePoint},
                                    {"reasoningContent", kReasoning},
                                    {"citationsContent", kCitations},
                                    {"searchResult", kSearchResult}};
constexpr Shape kBlock{.kind = kUnion, .members = kBlockMembers};
constexpr Shape kBlocks{.kind = kList, .item = &kBlock};
constexpr Names kRoles = {"user", "assistant", "system"};
constexpr Shape kRole{.values = kRoles};
constexpr Member kMessageMembers[] = {{"role", kRole, true}, {"content", kBlocks, true}};
constexpr Shape kMessage{.kind = kStructure, .members = kMessageMembers};
constexpr Shape kMessages{.kind = kList, .item = &kMessage};

constexpr Member kSystemMembers[] = {{"text", kFilledText}, {"guardContent", kGuardContent}, {"cachePoint", kCachePoint}};
constexpr Shape kSystemBlock{.kind = kUnion, .members = kSystemMembers};
constexpr Shape kSystem{.kind = kList, .item = &kSystemBlock};

constexpr Shape kTokens{.kind = kInteger, .least = 1, .most = 2147483647};
constexpr Shape kShare{.kind = kFloat, .most = 1};
constexpr Shape kStops{.kind = kList, .most = 2500, .item = &kFilledText};
constexpr Member kInferenceMembers[] = {
    {"maxTokens", kTokens}, {"temperature", kShare}, {"topP", kShare}, {"stopSequences", kStops}};
constexpr Shape kInference{.kind = kStructure, .members = kInferenceMembers};

constexpr Member kSchemaMembers[] = {{"json", kAny}};
constexpr Shape kInputSchema{.kind = kUnion, .members = kSchemaMembers};
constexpr Member kSpecMembers[] = {{"name", kToolName, true},
                                   {"description", kFilledText},
                                   {"inputSchema", kInputSchema, true},
                                   {"strict", kFlag}};
constexpr Shape kToolSpec{.kind = kStructure, .members = kSpecMembers};
constexpr Member kNamed[] = {{"name", kToolName, true}};
constexpr Shape kNamedTool{.kind = kStructure, .members = kNamed};
constexpr Member kToolMembers[] = {{"toolSpec", kToolSpec}, {"systemTool", kNamedTool}, {"cachePoint", kCachePoint}};
constexpr Shape kTool{.kind = kUnion, .members = kToolMembers};
constexpr Shape kTools{.kind = kList, .least = 1, .item = &kTool};
constexpr Shape kNothing{.kind = kStructure};
constexpr Member kChoiceMembers[] = {{"auto", kNothing}, {"any", kNothing}, {"tool", kNamedTool}};
constexpr Shape kChoice{.kind = kUnion, .members = kChoiceMembers};
constexpr Member kToolConfigMembers[] = {{"tools", kTools, true}, {"toolChoice", kChoice}};
constexpr Shape kToolConfig{.kind = kStructure, .members = kToolConfigMembers};

constexpr Shape kPath{.least = 1, .most = 256};
constexpr Shape kPaths{.kind = kList, .most = 10, .item = &kPath};
constexpr Shape kMetadataText{.most = 256};
constexpr Shape kMetadata{.kind = kMap, .least = 1, .most = 16, .item = &kMetadataText};
constexpr Names kLatencies = {"standard", "optimized"};
constexpr Shape kLatency{.values = kLatencies};
constexpr Member kPerformanceMembers[] = {{"latency", kLatency}};
constexpr Shape kPerformance{.kind = kStructure, .members = kPerformanceMembers};
constexpr Names kTiers = {"priority", "default", "flex", "reserved"};
constexpr Shape kTier{.values = kTiers};
constexpr Member kTierMembers[] = {{"type", kTier, true}};
constexpr Shape kServiceTier{.kind = kStructure, .members = kTierMembers};

constexpr Names kFormats = {"json_schema"};
constexpr Shape kFormat{.values = kFormats};
constexpr Member kDefinitionMembers[] = {{"schema", kText, true}, {"name", kText}, {"description", kText}};
constexpr Shape kDefinition{.kind = kStructure, .members = kDefinitionMembers};
constexpr Member kStructureMembers[] = {{"jsonSchema", kDefinition}};
constexpr Shape kFormatStructure{.kind = kUnion, .members = kStructureMembers};
constexpr Member kTextFormatMembers[] = {{"type", kFormat, true}, {"structure", kFormatStructure, true}};
constexpr Shape kTextFormat{.kind = kStructure, .members = kTextFormatMembers};
constexpr Shape kEffort{.most = 16};
constexpr Member kOutputMembers[] = {{"textFormat", kTextFormat}, {"effort", kEffort}};
constexpr Shape kOutput{.kind = kStructure, .members = kOutputMembers};

constexpr Member kConverseMembers[] = {{"messages", kMessages},
                                       {"system", kSystem},
                                       {"inferenceConfig", kInference},
                                       {"toolConfig", kToolConfig},
                                       {"additionalModelResponseFieldPaths", kPaths},
                                       {"requestMetadata", kMetadata},
                                       {"performanceConfig", kPerformance},
                                       {"serviceTier", kServiceTier},
                                       {"outputConfig", kOutput}};

}  // namespace

const Shape kConverseShape{.kind = kStructure, .members = kConverseMembers};

}  // namespace capstan::gateway::bedrock

#include "gateway/admission.h"

namespace capstan::gateway {
namespace {

class OpenAuthenticator final : public Authenticator {
 public:
  std::expected<CallerPtr, ApiError> authenticate(const http::Request&) override { return caller_; }

 private:
  CallerPtr caller_ = std::make_shared<Caller>();
};

class OpenPermit final : public Permit {
 public:
  void settle(const Settlement&) override {}
};

class OpenAdmission final : public Admission {
 public:
  Decision admit(const CallerPtr&, const CostEstimate&, std::function<void(Verdict)>) override {
    return Verdict(std::make_unique<OpenPermit>());
  }
};

}  // namespace

std::unique_ptr<Authenticator> open_authenticator() { return std::make_unique<OpenAuthenticator>(); }
std::unique_ptr<Admission> open_admission() { return std::make_unique<OpenAdmission>(); }

}  // namespace capstan::gateway

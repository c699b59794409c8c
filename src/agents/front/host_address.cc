#include "agents/front/host_address.h"

#include "base/file.h"
#include "base/json.h"

namespace capstan::agents {

Result<HostAddress::Host> HostAddress::now() const {
  const auto absent = [] { return fail(Code::kUnavailable, "the sandboxes' host has not started yet; try again in a moment"); };
  std::error_code error;
  const auto changed = std::filesystem::last_write_time(file_, error);
  const std::lock_guard lock(mutex_);
  if (error) return absent();
  if (known_ && changed == changed_) return *known_;
  const auto text = read_file(file_, 64 << 10);
  const auto json = text ? Json::parse(*text) : fail(Code::kNotFound, "no address");
  if (!json) return absent();
  known_ = Host{fmt::format("http://127.0.0.1:{}", json->get_int("port").value_or(0)),
                json->get_string("token").value_or(""), json->get_string("refusal").value_or(""),
                json->get_string("build").value_or("unknown")};
  changed_ = changed;
  return *known_;
}

}  // namespace capstan::agents

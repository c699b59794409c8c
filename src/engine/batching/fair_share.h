// FairShare: how much work of each tenant was done, so that the next work is that of who had least (virtual token counters;
// Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024).
//
//   FairShare share;
//   FairShare::Account* account = share.enter("team-a");   // a request of the tenant arrived
//   share.charge(*account, 512);                           // tokens computed for it; a generated token counts twice
//   share.leave(*account);                                 // and ended
//
// A tenant that comes back from idleness starts at the least counter among those that are active: nobody saves up credit.
// Pure.  Bounded: idle accounts beyond kIdleMax are forgotten, all at once.  Threads: one owner.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

namespace capstan::engine {

class FairShare {
 public:
  static constexpr std::size_t kIdleMax = 1024;
  static constexpr std::int64_t kGeneratedWeight = 2;

  struct Account {
    std::int64_t served = 0;     // the virtual counter
    std::int64_t committed = 0;  // scratch of who decides: work admitted and not yet done
    int requests = 0;
  };

  Account* enter(const std::string& tenant) {
    Account& account = accounts_[tenant];
    if (account.requests == 0) {
      std::int64_t least = INT64_MAX;
      for (const auto& [name, other] : accounts_) {
        if (other.requests > 0) least = std::min(least, other.served);
      }
      if (least != INT64_MAX) account.served = std::max(account.served, least);
      ++active_;
    }
    ++account.requests;
    return &account;
  }
  void charge(Account& account, std::int64_t tokens) { account.served += tokens; }
  void leave(Account& account) {
    if (--account.requests > 0) return;
    --active_;
    if (accounts_.size() - active_ > kIdleMax)
      std::erase_if(accounts_, [](const auto& entry) { return entry.second.requests == 0; });
  }
  std::map<std::string, Account>& accounts() { return accounts_; }

 private:
  std::map<std::string, Account> accounts_;
  std::size_t active_ = 0;
};

}  // namespace capstan::engine

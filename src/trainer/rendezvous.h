// Rendezvous: a tiny key-value store over TCP by which the ranks of a gang exchange their addresses.
//
// Rank 0 hosts it at MASTER_ADDR:MASTER_PORT while the gang forms; every rank, rank 0 too, is a client. A
// value is set once; a get waits until the key is there. The server lives for seconds and holds only socket
// addresses.
//
// The wire, all integers little-endian u32:  request  op ('S' set, 'G' get), key length, value length, key,
// value
//                                            answer   value length, value (empty for a set)
// A client opens with the 8 bytes "CAPRDV01" and the run's name (length, bytes); another name is refused by
// closing the connection, so a rank of an older attempt cannot join this one. Bounds: kKeyBytesMax,
// kValueBytesMax, connections (named below). It has no secrets and no authentication: as with torchrun, the
// network between ranks is trusted; it binds MASTER_ADDR only. Failure: kUnavailable (cannot bind, connect;
// peer gone), kTimeout.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace capstan::trainer {

inline constexpr std::uint32_t kKeyBytesMax = 4096;
inline constexpr std::uint32_t kValueBytesMax = 4u << 20;
inline constexpr std::size_t kRendezvousKeysMax = 1u << 20;

struct RendezvousAddress {
  std::string host;
  std::uint16_t port = 0;  // a server may listen on 0: the system chooses
  std::string run;
};

// Serves on its own threads until destroyed.
class RendezvousServer {
 public:
  static Result<std::unique_ptr<RendezvousServer>> start(const RendezvousAddress& address, int clients_max);
  ~RendezvousServer();
  std::uint16_t port() const;

 private:
  struct State;
  explicit RendezvousServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Threads: one owner.
class RendezvousClient {
 public:
  // Tries again until the server is there or `timeout_ms` has passed.
  static Result<RendezvousClient> connect(const RendezvousAddress& address, int timeout_ms);
  RendezvousClient(RendezvousClient&& other) noexcept;
  RendezvousClient& operator=(RendezvousClient&& other) noexcept;
  ~RendezvousClient();

  Result<void> set(const std::string& key, const std::string& value);
  // Waits for the key, at most the timeout given at connect.
  Result<std::string> get(const std::string& key);
  // The address of this host on the way to the server: where peers can reach it.
  Result<std::string> local_address() const;

 private:
  explicit RendezvousClient(int socket) : socket_(socket) {}
  int socket_ = -1;
};

}  // namespace capstan::trainer

// A connected, non-blocking socket, plain or under TLS. Private to http/.
//
// Threads: of its event loop.  Ownership: closes its descriptor.
#pragma once

#include <openssl/ssl.h>
#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace capstan::http {

struct SslFree {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
using SslPtr = std::unique_ptr<SSL, SslFree>;

class Transport {
 public:
  enum class Status { kOk, kBlocked, kEnd, kError };
  struct Progress {
    Status status = Status::kOk;
    std::size_t bytes = 0;
  };

  explicit Transport(int fd) : fd_(fd) {}
  Transport(int fd, SslPtr ssl);  // the side (accept or connect) is set already
  ~Transport() { close(); }
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  bool is_tls() const { return ssl_ != nullptr; }
  // kOk when done, kBlocked while it goes on.
  Status handshake();
  Progress read(char* to, std::size_t bytes);
  Progress write(std::span<const iovec> pieces);
  // TLS: a blocked operation waits for the other direction.
  bool wants_write() const { return wants_write_; }
  void shutdown_send();
  // For an answer that comes in many small pieces: the kernel acknowledges every second one, not each as it is read.
  void delay_acknowledgements();
  void close();
  std::string failure() const;  // of the last kError

 private:
  Progress after_tls(int result);
  int fd_;
  SslPtr ssl_;
  bool wants_write_ = false;
  int error_ = 0;
  std::string tls_failure_;
};

}  // namespace capstan::http

#include "http/transport.h"

#include <openssl/err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/x509_vfy.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace capstan::http {

Transport::Transport(int fd, SslPtr ssl) : fd_(fd), ssl_(std::move(ssl)) {
  SSL_set_fd(ssl_.get(), fd_);
  SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

Transport::Progress Transport::after_tls(int result) {
  if (result > 0) return {Status::kOk, static_cast<std::size_t>(result)};
  const int error = SSL_get_error(ssl_.get(), result);
  wants_write_ = error == SSL_ERROR_WANT_WRITE;
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return {Status::kBlocked, 0};
  if (error == SSL_ERROR_ZERO_RETURN) return {Status::kEnd, 0};
  error_ = error == SSL_ERROR_SYSCALL ? errno : EPROTO;
  if (const long verdict = SSL_get_verify_result(ssl_.get()); verdict != X509_V_OK) {
    tls_failure_ = X509_verify_cert_error_string(verdict);
  } else if (const char* reason = ERR_reason_error_string(ERR_peek_error()); reason != nullptr) {
    tls_failure_ = reason;
  }
  ERR_clear_error();
  if (error == SSL_ERROR_SYSCALL && error_ == 0) return {Status::kEnd, 0};
  return {Status::kError, 0};
}

Transport::Status Transport::handshake() {
  ERR_clear_error();
  return ssl_ == nullptr ? Status::kOk : after_tls(SSL_do_handshake(ssl_.get())).status;
}

Transport::Progress Transport::read(char* to, std::size_t bytes) {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    return after_tls(SSL_read(ssl_.get(), to, static_cast<int>(bytes)));
  }
  const ssize_t count = ::recv(fd_, to, bytes, 0);
  if (count > 0) return {Status::kOk, static_cast<std::size_t>(count)};
  if (count == 0) return {Status::kEnd, 0};
  error_ = errno;
  return {error_ == EAGAIN || error_ == EINTR ? Status::kBlocked : Status::kError, 0};
}

Transport::Progress Transport::write(std::span<const iovec> pieces) {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    return after_tls(
        SSL_write(ssl_.get(), pieces[0].iov_base, static_cast<int>(std::min<std::size_t>(pieces[0].iov_len, 1u << 20))));
  }
  ssize_t count = 0;
  if (pieces.size() == 1) {
    count = ::send(fd_, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL);
  } else {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = pieces.size();
    count = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
  }
  if (count >= 0) return {Status::kOk, static_cast<std::size_t>(count)};
  error_ = errno;
  return {error_ == EAGAIN || error_ == EINTR ? Status::kBlocked : Status::kError, 0};
}

void Transport::shutdown_send() {
  if (ssl_ != nullptr) SSL_shutdown(ssl_.get());
  ::shutdown(fd_, SHUT_WR);
}

void Transport::delay_acknowledgements() {
  const int quickly = 0;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_QUICKACK, &quickly, sizeof quickly);
}

void Transport::close() {
  if (fd_ < 0) return;
  ssl_.reset();
  ::close(fd_);
  fd_ = -1;
}

std::string Transport::failure() const { return tls_failure_.empty() ? std::strerror(error_) : tls_failure_; }

}  // namespace capstan::http

// TLS contexts of the server and of clients. Private to http/.
#pragma once

#include <openssl/ssl.h>

#include <memory>

#include "base/result.h"
#include "http/transport.h"

namespace capstan::http {

struct SslContextFree {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using SslContextPtr = std::unique_ptr<SSL_CTX, SslContextFree>;

// TLS 1.2 and later; by ALPN h2 or http/1.1.
Result<SslContextPtr> server_tls(const std::string& certificate, const std::string& key);
SslPtr accept_tls(SSL_CTX& context);

// Trusts the system's roots (SSL_CERT_FILE and SSL_CERT_DIR apply) and checks the host's name.
SslContextPtr client_tls();
SslPtr connect_tls(SSL_CTX& context, const std::string& host);

}  // namespace capstan::http

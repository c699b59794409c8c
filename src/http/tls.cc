#include "http/tls.h"

#include <openssl/err.h>

#include <string>
#include <string_view>

namespace capstan::http {
namespace {

std::string last_failure() {
  const char* reason = ERR_reason_error_string(ERR_get_error());
  ERR_clear_error();
  return reason != nullptr ? reason : "unknown failure";
}

// The server's choice: h2 before http/1.1; a client that offers neither goes on without ALPN.
int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_bytes, const unsigned char* offered,
                    unsigned int offered_bytes, void*) {
  static constexpr std::string_view kOurs = "\x02h2\x08http/1.1";
  const auto verdict = SSL_select_next_proto(const_cast<unsigned char**>(out), out_bytes,
                                             reinterpret_cast<const unsigned char*>(kOurs.data()), kOurs.size(), offered,
                                             offered_bytes);
  return verdict == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

}  // namespace

Result<SslContextPtr> server_tls(const std::string& certificate, const std::string& key) {
  SslContextPtr context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  if (SSL_CTX_use_certificate_chain_file(context.get(), certificate.c_str()) != 1)
    return fail(Code::kInvalid, "cannot use TLS certificate {}: {}", certificate, last_failure());
  if (SSL_CTX_use_PrivateKey_file(context.get(), key.c_str(), SSL_FILETYPE_PEM) != 1)
    return fail(Code::kInvalid, "cannot use TLS key {}: {}", key, last_failure());
  SSL_CTX_set_alpn_select_cb(context.get(), choose_protocol, nullptr);
  return context;
}

SslPtr accept_tls(SSL_CTX& context) {
  SslPtr ssl(SSL_new(&context));
  SSL_set_accept_state(ssl.get());
  return ssl;
}

SslContextPtr client_tls() {
  SslContextPtr context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_default_verify_paths(context.get());
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  return context;
}

SslPtr connect_tls(SSL_CTX& context, const std::string& host) {
  SslPtr ssl(SSL_new(&context));
  SSL_set_tlsext_host_name(ssl.get(), host.c_str());
  SSL_set1_host(ssl.get(), host.c_str());
  SSL_set_connect_state(ssl.get());
  return ssl;
}

}  // namespace capstan::http

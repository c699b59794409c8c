// Goal: server and client speak TLS with each other, and neither is fooled: a certificate that nobody vouches
// for, a name that it is not for, plain HTTP to a TLS port. Method: a certificate made here, trusted through
// SSL_CERT_FILE.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "http/client.h"
#include "http/server.h"

namespace capstan::http {
namespace {

// A self-signed certificate for localhost and its key, in files that are removed with it.
class Certificate {
 public:
  Certificate() {
    char folder[] = "/tmp/capstan-tls-XXXXXX";
    folder_ = ::mkdtemp(folder);
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* x509 = X509_new();
    X509_set_version(x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    X509_set_pubkey(x509, key);
    X509_NAME* name = X509_get_subject_name(x509);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("localhost"),
                               -1, -1, 0);
    X509_set_issuer_name(x509, name);
    X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost");
    X509_add_ext(x509, names, -1);
    X509_EXTENSION_free(names);
    X509_sign(x509, key, EVP_sha256());
    write(key_path(),
          [&](FILE* file) { PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr); });
    write(path(), [&](FILE* file) { PEM_write_X509(file, x509); });
    X509_free(x509);
    EVP_PKEY_free(key);
  }
  ~Certificate() { std::filesystem::remove_all(folder_); }
  std::string path() const { return folder_ + "/certificate.pem"; }
  std::string key_path() const { return folder_ + "/key.pem"; }

 private:
  template <class Function>
  static void write(const std::string& path, Function function) {
    FILE* file = std::fopen(path.c_str(), "w");
    ASSERT_NE(file, nullptr);
    function(file);
    std::fclose(file);
  }
  std::string folder_;
};

class TlsTest : public testing::Test {
 protected:
  void SetUp() override {
    Router router;
    router.add("POST", "/echo", [](const Request& request, const ResponseWriterPtr& writer) {
      writer->start(200, {});
      writer->write(request.body);
      writer->finish();
    });
    auto server = Server::start({.tls_certificate = certificate_.path(), .tls_key = certificate_.key_path()},
                                router.handler());
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
  }
  void TearDown() override { ::unsetenv("SSL_CERT_FILE"); }

  Result<Response> echo(const std::string& origin, std::string body) {
    return client_.request(fmt::format("{}:{}", origin, server_->port()),
                           {.method = "POST", .target = "/echo", .body = std::move(body)}, {});
  }

  Certificate certificate_;
  std::unique_ptr<Server> server_;
  Client client_;
};

TEST_F(TlsTest, ATrustedServerIsSpokenTo) {
  ::setenv("SSL_CERT_FILE", certificate_.path().c_str(), 1);
  const std::string large(300'000, 'x');
  for (int i = 0; i < 3; ++i) {
    const auto answer = echo("https://localhost", large);
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->body, large);
  }
}

TEST_F(TlsTest, AnUntrustedCertificateOrAnotherNameIsRefused) {
  EXPECT_EQ(echo("https://localhost", "x").error().code, Code::kUnavailable);
  ::setenv("SSL_CERT_FILE", certificate_.path().c_str(), 1);
  EXPECT_EQ(echo("https://127.0.0.1", "x").error().code, Code::kUnavailable);
}

TEST_F(TlsTest, PlainHttpToATlsPortFailsAndHarmsNobody) {
  EXPECT_FALSE(echo("http://localhost", "x"));
  ::setenv("SSL_CERT_FILE", certificate_.path().c_str(), 1);
  EXPECT_TRUE(echo("https://localhost", "x"));
}

TEST(TlsServerTest, FilesThatAreNoCertificateAreNamed) {
  const auto server =
      Server::start({.tls_certificate = "/nowhere.pem", .tls_key = "/nowhere.key"}, Router().handler());
  ASSERT_FALSE(server);
  EXPECT_NE(server.error().message.find("/nowhere.pem"), std::string::npos);
}

}  // namespace
}  // namespace capstan::http

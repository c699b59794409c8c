// Fuzzes the HTTP/2 session over a real socket: whatever follows the preface must end in answers or a closed connection, and
// leave the server well: after it another client is served.
//
// Under libFuzzer the whole input follows the preface; without it, main() runs damaged copies of good sessions
// (base/fuzz_rounds.h).
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/fuzz_rounds.h"
#include "http/server.h"

namespace {

using namespace capstan;
using namespace capstan::http;

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

void must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

Server& server() {
  static const std::unique_ptr<Server> one = [] {
    Router router;
    router.add_on_loop("POST", "/echo", [](Request request, const ResponseWriterPtr& writer) {
      writer->start(200, {{"content-type", "text/plain"}});
      writer->write(request.body);
      writer->finish();
    });
    router.add_on_loop("GET", "/", [](Request, const ResponseWriterPtr& writer) { writer->respond(Response::text(200, "ok")); });
    return Server::start({.threads = 1, .limits = {.header_bytes_max = 4'096, .body_bytes_max = 65'536}}, router).value();
  }();
  return *one;
}

// What the server answers until it closes; the client closes its own side after the bytes.
std::string talk(std::string_view bytes) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(server().port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  must(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "the server is gone");
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) break;  // it has closed already
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  ::shutdown(fd, SHUT_WR);
  std::string out;
  char buffer[4'096];
  for (ssize_t got; (got = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) out.append(buffer, static_cast<std::size_t>(got));
  ::close(fd);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t count) {
  static int inputs = 0;
  (void)talk(std::string(kPreface).append(reinterpret_cast<const char*>(bytes), count));
  if (++inputs % 64 == 0)
    must(talk("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ends_with("ok"), "another client is not served");
  return 0;
}

#ifndef CAPSTAN_LIBFUZZER
namespace {

std::string frame(char type, char flags, char stream, std::string_view payload) {
  const auto byte = [&](int shift) { return static_cast<char>(payload.size() >> shift & 0xFF); };
  return std::string{byte(16), byte(8), byte(0), type, flags, 0, 0, 0, stream}.append(payload);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace std::string_literals;
  const std::string settings = frame(4, 0, 0, "\0\3\0\0\0\x64"s);
  // :method GET, :scheme http, :path /, :authority "x"; and POST /echo.
  const std::string get = "\x82\x86\x84\x41\x01x"s, post = "\x83\x86\x44\x05/echo\x41\x01x"s;
  return fuzz_rounds(argc, argv,
                     {settings + frame(1, 5, 1, get) + frame(4, 1, 0, ""),
                      settings + frame(1, 4, 1, post) + frame(0, 0, 1, "hello ") + frame(0, 1, 1, "there"),
                      settings + frame(1, 0, 1, post.substr(0, 4)) + frame(9, 4, 1, post.substr(4)) + frame(0, 1, 1, "x"),
                      settings + frame(1, 5, 1, get) + frame(3, 0, 1, "\0\0\0\x8"s) + frame(6, 0, 0, "12345678") +
                          frame(8, 0, 0, "\0\0\x7f\xff"s) + frame(2, 0, 3, "\0\0\0\0\x10"s) +
                          frame(7, 0, 0, "\0\0\0\0\0\0\0\0"s)},
                     2'000);
}
#endif

// Goal: a sandbox's way out leads to listed hosts only, whatever names and addresses it is asked for. Method: rules and
// addresses as tables; a proxy on loopback with a resolver of the test's own and a real server behind it.
#include "agents/egress/egress.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "agents/egress/proxy_request.h"

namespace capstan::agents {
namespace {

HostRules rules(const std::vector<std::string>& entries) {
  auto parsed = HostRules::parse(entries);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? *parsed : HostRules{};
}

TEST(Address, OnlyPlacesOnTheInternetArePublic) {
  for (const char* text : {"1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111"})
    EXPECT_TRUE(Address::parse(text)->is_public()) << text;
  for (const char* text :
       {"0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.1", "169.254.169.254", "172.16.0.1",
        "172.31.255.255", "192.168.1.1", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "168.63.129.16", "::",
        "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:53aa::1", "2001:db8::1"})
    EXPECT_FALSE(Address::parse(text)->is_public()) << text;
  for (const char* text : {"", "127.1", "0x7f000001", "2130706433", "1.2.3.4.", "[1.2.3.4]", "localhost", "::1%lo"})
    EXPECT_FALSE(Address::parse(text)) << text;
  EXPECT_EQ(Address::parse("[::FFFF:1.2.3.4]")->text(), "1.2.3.4");
}

TEST(HostRules, NamesBelowAnotherPortsAndAddresses) {
  const HostRules list = rules({"PyPI.org", "*.example.com:8443", "10.0.0.5:8080", "[fd00::1]:80"});
  EXPECT_TRUE(list.allows_name("pypi.org", 443));
  EXPECT_TRUE(list.allows_name("pypi.org", 80));
  EXPECT_FALSE(list.allows_name("pypi.org", 22));
  EXPECT_FALSE(list.allows_name("evil-pypi.org", 443));
  EXPECT_FALSE(list.allows_name("pypi.org.evil.net", 443));
  EXPECT_TRUE(list.allows_name("a.b.example.com", 8443));
  EXPECT_FALSE(list.allows_name("example.com", 8443));
  EXPECT_FALSE(list.allows_name("notexample.com", 8443));
  EXPECT_FALSE(list.allows_name("a.example.com", 443));
  EXPECT_TRUE(list.allows_address(*Address::parse("10.0.0.5"), 8080));
  EXPECT_FALSE(list.allows_address(*Address::parse("10.0.0.6"), 8080));
  EXPECT_TRUE(list.permits(*Address::parse("10.0.0.5"), 8080));
  EXPECT_FALSE(list.permits(*Address::parse("10.0.0.5"), 80));
  EXPECT_TRUE(list.permits(*Address::parse("fd00::1"), 80));
  EXPECT_TRUE(list.permits(*Address::parse("1.1.1.1"), 443));
  const HostRules any = rules({"*:443"});
  EXPECT_TRUE(any.allows_name("anything.net", 443));
  EXPECT_FALSE(any.allows_name("anything.net", 80));
  EXPECT_TRUE(any.allows_address(*Address::parse("1.1.1.1"), 443));
  EXPECT_FALSE(any.allows_address(*Address::parse("127.0.0.1"), 443));
  for (const char* wrong : {"", "a b", "http://a", "a:0", "a:70000", "*", "a.*", "**.a", "a/b", "-:x", "1.2.3.4/8", "a..b"})
    EXPECT_EQ(HostRules::parse({wrong}).has_value(), std::string_view(wrong) == "*") << wrong;
  EXPECT_FALSE(HostRules::parse(std::vector<std::string>(kHostRulesMax + 1, "a")));
}

TEST(HostRules, AListIsWithinAnotherOnlyIfEachEntryIs) {
  const HostRules limits = rules({"*.example.com", "pypi.org:443", "10.0.0.5:80"});
  for (const char* good : {"a.example.com", "*.a.example.com:443", "*.example.com", "pypi.org:443", "10.0.0.5:80"})
    EXPECT_TRUE(rules({good}).check_within(limits)) << good;
  for (const char* wider : {"example.com", "pypi.org", "*.com", "*", "*.org:443", "10.0.0.5", "10.0.0.6:80", "a.example.com:22"})
    EXPECT_EQ(rules({wider}).check_within(limits).error().code, Code::kDenied) << wider;
  EXPECT_TRUE(rules({"a.net", "*.b.net", "1.1.1.1"}).check_within(rules({"*"})));
  EXPECT_FALSE(rules({"10.0.0.5"}).check_within(rules({"*"})));  // not public: by its address or not at all
  EXPECT_TRUE(rules({}).check_within(rules({})));
}

TEST(ProxyRequest, HeadsAreReadStrictlyAndSentOnWithoutWhatIsForThisHop) {
  const auto tunnel = parse_proxy_request("CONNECT Example.COM.:443 HTTP/1.1\r\nHost: whatever\r\n\r\n");
  ASSERT_TRUE(tunnel);
  EXPECT_TRUE(tunnel->tunnel && tunnel->host == "example.com" && tunnel->port == 443);
  const auto get = parse_proxy_request(
      "GET http://a.net?q=1 HTTP/1.1\r\nHost: evil.net\r\nProxy-Authorization: x\r\nConnection: keep-alive\r\n"
      "Accept: */*\r\n\r\n");
  ASSERT_TRUE(get) << get.error().message;
  EXPECT_EQ(get->port, 80);
  EXPECT_EQ(get->head, "GET /?q=1 HTTP/1.1\r\nHost: a.net\r\nConnection: close\r\nAccept: */*\r\n\r\n");
  EXPECT_EQ(parse_proxy_request("CONNECT [::1]:80 HTTP/1.1\r\n\r\n")->host, "::1");
  for (const std::string wrong :
       {"GET / HTTP/1.1\r\n\r\n", "GET https://a.net/ HTTP/1.1\r\n\r\n", "CONNECT a.net HTTP/1.1\r\n\r\n", "CONNECT\r\n\r\n",
        "CONNECT ::1:80 HTTP/1.1\r\n\r\n", "CONNECT a.net:99999 HTTP/1.1\r\n\r\n", "CONNECT :443 HTTP/1.1\r\n\r\n",
        "CONNECT a.net:1 HTTP/2.0\r\n\r\n", "GET http://a.net/ HTTP/1.1\r\n Host: b\r\n\r\n",
        "GET http://a.net/ HTTP/1.1\r\nX\r\n\r\n", "GET http://a.net/ HTTP/1.1\r\nX: a\rHost: b\r\n\r\n"})
    EXPECT_FALSE(parse_proxy_request(wrong)) << wrong;
}

sandbox::Fd listen_on_loopback(std::uint16_t& port, int flags) {
  sandbox::Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::listen(socket.get(), 64), 0);
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size);
  port = ntohs(address.sin_port);
  return socket;
}

sandbox::Fd connect_to(std::uint16_t port) {
  sandbox::Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return socket;
}

std::string read_all(int fd) {
  std::string out;
  char buffer[4096];
  for (ssize_t count = 0; (count = ::read(fd, buffer, sizeof buffer)) > 0;) out.append(buffer, static_cast<std::size_t>(count));
  return out;
}

class Proxy : public testing::Test {
 protected:
  void SetUp() override {
    loop_thread_ = std::thread([this] { loop_.run(); });
    server_ = listen_on_loopback(server_port_, 0);
    open({});
  }
  void TearDown() override {
    egress_->stop();
    egress_.reset();
    ::shutdown(server_.get(), SHUT_RDWR);
    if (server_thread_.joinable()) server_thread_.join();
    loop_.stop();
    loop_thread_.join();
  }
  void open(EgressLimits limits) {
    if (egress_) egress_->stop();
    const std::string port = ":" + std::to_string(server_port_);
    egress_ = Egress::start(loop_, lookups_, listen_on_loopback(port_, SOCK_NONBLOCK),
                            rules({"good.test" + port, "127.0.0.1" + port, "rebinds.test", "unknown.test"}), limits);
  }
  // A server that hands each connection to `serve`.
  void serve(std::function<void(int)> serve_one) {
    server_thread_ = std::thread([this, serve_one] {
      for (;;) {
        const sandbox::Fd peer(::accept4(server_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!peer) return;
        serve_one(peer.get());
      }
    });
  }
  std::string ask(const std::string& request) {
    const sandbox::Fd client = connect_to(port_);
    EXPECT_EQ(::send(client.get(), request.data(), request.size(), MSG_NOSIGNAL), std::ssize(request));
    ::shutdown(client.get(), SHUT_WR);
    return read_all(client.get());
  }
  std::string connect(const std::string& where) { return ask("CONNECT " + where + " HTTP/1.1\r\n\r\n"); }

  http::EventLoop loop_;
  std::thread loop_thread_, server_thread_;
  std::shared_ptr<Lookups> lookups_ = std::make_shared<Lookups>([](const std::string& name) -> std::vector<Address> {
    if (name == "good.test" || name == "rebinds.test") return {*Address::parse("127.0.0.1")};
    return {};
  });
  sandbox::Fd server_;
  std::uint16_t server_port_ = 0, port_ = 0;
  std::shared_ptr<Egress> egress_;
};

TEST_F(Proxy, ATunnelToAListedHostCarriesBytesBothWaysAndCountsThem) {
  serve([](int peer) {
    const std::string heard = read_all(peer);  // until the end was passed on
    const std::string answer = "heard " + std::to_string(heard.size()) + std::string(300'000, 'x');
    for (std::size_t sent = 0; sent < answer.size();) {
      const ssize_t count = ::send(peer, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return;
      sent += static_cast<std::size_t>(count);
    }
  });
  const std::string sent(200'000, 'y');
  const std::string got = ask("CONNECT good.test:" + std::to_string(server_port_) + " HTTP/1.1\r\n\r\n" + sent);
  const std::size_t body = got.find("\r\n\r\n");
  ASSERT_NE(body, got.npos) << got.substr(0, 200);
  EXPECT_TRUE(got.starts_with("HTTP/1.1 200 ")) << got.substr(0, 200);
  EXPECT_EQ(got.substr(body + 4), "heard 200000" + std::string(300'000, 'x'));
  EXPECT_EQ(egress_->take_bytes_out(), 200'000);
  EXPECT_EQ(egress_->take_bytes_in(), 300'012);
  EXPECT_EQ(egress_->take_bytes_in(), 0);
}

TEST_F(Proxy, ARequestWithAnAddressIsSentOnToItsHost) {
  serve([](int peer) {
    char buffer[4096];
    const ssize_t count = ::read(peer, buffer, sizeof buffer);
    const std::string heard(buffer, static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    const std::string answer = "HTTP/1.1 200 OK\r\n\r\n" + heard;
    (void)!::send(peer, answer.data(), answer.size(), MSG_NOSIGNAL);
  });
  const std::string authority = "good.test:" + std::to_string(server_port_);
  const std::string got = ask("GET http://" + authority + "/path HTTP/1.1\r\nHost: " + authority + "\r\n\r\n");
  EXPECT_NE(got.find("GET /path HTTP/1.1\r\nHost: " + authority + "\r\nConnection: close\r\n"), got.npos) << got;
}

TEST_F(Proxy, WhatIsNotListedIsRefusedWithWhatIs) {
  for (const char* where : {"other.test:443", "good.test:22", "127.0.0.1:443", "[::1]:80", "169.254.169.254:80", "127.1:443",
                            "localhost:443", "good.test.evil.test:443"}) {
    const std::string got = connect(where);
    EXPECT_TRUE(got.starts_with("HTTP/1.1 403 ")) << where << ": " << got;
    EXPECT_NE(got.find("good.test:"), got.npos) << got;
  }
  egress_->set_rules({});
  EXPECT_TRUE(connect("good.test:" + std::to_string(server_port_)).starts_with("HTTP/1.1 403 "));
}

TEST_F(Proxy, AListedNameThatLeadsToThisHostIsRefused) {
  const std::string got = connect("rebinds.test:443");
  EXPECT_TRUE(got.starts_with("HTTP/1.1 403 ")) << got;
  EXPECT_NE(got.find("leads to 127.0.0.1"), got.npos) << got;
}

TEST_F(Proxy, WhatCannotBeServedSaysWhy) {
  EXPECT_TRUE(connect("unknown.test:443").starts_with("HTTP/1.1 502 "));
  EXPECT_TRUE(ask("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
  EXPECT_TRUE(ask("CONNECT " + std::string(20'000, 'a')).starts_with("HTTP/1.1 431 "));
  ::shutdown(server_.get(), SHUT_RDWR);
  server_.reset();
  EXPECT_TRUE(connect("good.test:" + std::to_string(server_port_)).starts_with("HTTP/1.1 504 "));
}

TEST_F(Proxy, ConnectionsAreBoundedInNumberAndInSilence) {
  open({.connections_max = 2, .head_ms_max = 300});
  const sandbox::Fd first = connect_to(port_), second = connect_to(port_);
  std::string refused;
  for (int i = 0; i < 100 && !refused.starts_with("HTTP/1.1 503 "); ++i) refused = connect("unknown.test:443");
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 503 ")) << refused;
  EXPECT_TRUE(read_all(first.get()).starts_with("HTTP/1.1 408 "));
  EXPECT_TRUE(read_all(second.get()).starts_with("HTTP/1.1 408 "));
}

TEST_F(Proxy, ItsEndEndsItsConnections) {
  serve([](int peer) { (void)read_all(peer); });
  const sandbox::Fd client = connect_to(port_);
  const std::string request = "CONNECT good.test:" + std::to_string(server_port_) + " HTTP/1.1\r\n\r\n";
  ASSERT_EQ(::send(client.get(), request.data(), request.size(), MSG_NOSIGNAL), std::ssize(request));
  char buffer[128];
  ASSERT_GT(::read(client.get(), buffer, sizeof buffer), 0);
  egress_->stop();
  EXPECT_LE(::read(client.get(), buffer, sizeof buffer), 0);
}

}  // namespace
}  // namespace capstan::agents

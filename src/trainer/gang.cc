// How it works: the rendezvous store gives gloo the peers' addresses, gloo connects every pair over TCP, and
// the store is closed again. A peer that dies closes its sockets, which gloo reports at once; one that hangs
// runs into the timeout. Gloo throws; here its exceptions become errors.
#include "trainer/gang.h"

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/attr.h>
#include <gloo/transport/tcp/device.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>

#include "base/text.h"
#include "trainer/rendezvous.h"

namespace capstan::trainer {
namespace {

class SoloGang : public Gang {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  Result<void> sum(std::span<float>) override { return {}; }
  Result<std::vector<std::uint8_t>> gather_bytes(std::span<const std::uint8_t> mine) override {
    return std::vector<std::uint8_t>(mine.begin(), mine.end());
  }
};

// Gloo's view of our store. It reports failure the only way that gloo knows: by throwing.
class StoreForGloo : public gloo::rendezvous::Store {
 public:
  explicit StoreForGloo(RendezvousClient& client) : client_(client) {}

  void set(const std::string& key, const std::vector<char>& data) override {
    if (auto done = client_.set(key, std::string(data.begin(), data.end())); !done) raise(done.error());
  }
  std::vector<char> get(const std::string& key) override {
    Result<std::string> value = client_.get(key);
    if (!value) raise(value.error());
    return {value->begin(), value->end()};
  }
  void wait(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) get(key);
  }
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds&) override { wait(keys); }

 private:
  [[noreturn]] static void raise(const Error& error) { throw gloo::IoException(error.message); }
  RendezvousClient& client_;
};

// Gloo's messages open with "[file:line] "; a person does not need it.
std::string without_location(const char* what) {
  const std::string_view text(what);
  const std::size_t end = text.starts_with('[') ? text.find("] ") : std::string_view::npos;
  return std::string(end == std::string_view::npos ? text : text.substr(end + 2));
}

class GlooGang : public Gang {
 public:
  explicit GlooGang(std::shared_ptr<gloo::rendezvous::Context> context) : context_(std::move(context)) {}

  int rank() const override { return context_->rank; }
  int size() const override { return context_->size; }

  Result<void> sum(std::span<float> values) override {
    return guarded("summing gradients", [&] {
      gloo::AllreduceOptions options(context_);
      options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
      options.setOutput(values.data(), values.size());
      options.setReduceFunction(
          static_cast<void (*)(void*, const void*, const void*, std::size_t)>(&gloo::sum<float>));
      options.setTag(next_tag());
      gloo::allreduce(options);
    });
  }

  Result<std::vector<std::uint8_t>> gather_bytes(std::span<const std::uint8_t> mine) override {
    std::vector<std::uint8_t> input(mine.begin(), mine.end());
    std::vector<std::uint8_t> all(input.size() * static_cast<std::size_t>(size()));
    CAPSTAN_CHECK(guarded("exchanging the state of the step", [&] {
      gloo::AllgatherOptions options(context_);
      options.setInput(input.data(), input.size());
      options.setOutput(all.data(), all.size());
      options.setTag(next_tag());
      gloo::allgather(options);
    }));
    return all;
  }

 private:
  template <class Work>
  Result<void> guarded(std::string_view what, Work&& work) {
    try {
      work();
      return {};
    } catch (const std::exception& exception) {
      return fail(Code::kUnavailable, "rank {} lost a peer while {}: {}", rank(), what,
                  without_location(exception.what()));
    }
  }
  std::uint32_t next_tag() { return tag_++; }

  // Shared with gloo's own buffers and options, which keep it alive while an operation runs.
  std::shared_ptr<gloo::rendezvous::Context> context_;
  std::uint32_t tag_ = 1;
};

Result<std::int64_t> integer_variable(const char* name, std::int64_t low, std::int64_t high) {
  const char* text = std::getenv(name);
  if (text == nullptr)
    return fail(Code::kInvalid, "{} is not set, though the gang has more than one rank", name);
  const std::optional<std::int64_t> value = parse_int(text);
  if (!value || *value < low || *value > high) {
    return fail(Code::kInvalid, "{}='{}' must be an integer from {} to {}", name, text, low, high);
  }
  return *value;
}

std::string variable(const char* name, const char* otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? text : otherwise;
}

Result<std::unique_ptr<Gang>> connect_gang(const GangConfig& config, RendezvousClient& client,
                                           const std::string& host) {
  try {
    gloo::transport::tcp::attr attributes(host.c_str());
    std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(attributes);
    auto context = std::make_shared<gloo::rendezvous::Context>(config.rank, config.size);
    context->setTimeout(std::chrono::milliseconds(config.timeout_ms));
    StoreForGloo store(client);
    context->connectFullMesh(store, device);
    return std::unique_ptr<Gang>(std::make_unique<GlooGang>(std::move(context)));
  } catch (const std::exception& exception) {
    return fail(Code::kUnavailable, "rank {} could not connect to its gang of {}: {}", config.rank,
                config.size, without_location(exception.what()));
  }
}

}  // namespace

Result<std::vector<double>> Gang::gather(std::span<const double> mine) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(mine.data());
  CAPSTAN_TRY(const std::vector<std::uint8_t> all, gather_bytes({bytes, mine.size_bytes()}));
  std::vector<double> values(all.size() / sizeof(double));
  std::memcpy(values.data(), all.data(), all.size());
  return values;
}

Result<void> Gang::agree(std::string_view what, std::span<const std::uint8_t> mine) {
  CAPSTAN_TRY(const std::vector<std::uint8_t> all, gather_bytes(mine));
  for (std::size_t at = 0; at < all.size(); at += mine.size()) {
    if (std::memcmp(all.data(), all.data() + at, mine.size()) != 0) {
      return fail(Code::kConflict, "rank {} has another {} than rank 0", at / mine.size(), what);
    }
  }
  return {};
}

Result<void> Gang::barrier() {
  const std::uint8_t here = 1;
  CAPSTAN_CHECK(gather_bytes({&here, 1}));
  return {};
}

Result<GangConfig> gang_from_environment() {
  GangConfig config;
  if (std::getenv("RANK") == nullptr && std::getenv("WORLD_SIZE") == nullptr) return config;
  constexpr std::int64_t kRanksMax = 1 << 20;
  CAPSTAN_TRY(const std::int64_t size, integer_variable("WORLD_SIZE", 1, kRanksMax));
  CAPSTAN_TRY(const std::int64_t rank, integer_variable("RANK", 0, size - 1));
  config.size = static_cast<int>(size);
  config.rank = static_cast<int>(rank);
  config.local_rank = config.rank;
  if (std::getenv("LOCAL_RANK") != nullptr) {
    CAPSTAN_TRY(const std::int64_t local, integer_variable("LOCAL_RANK", 0, kRanksMax));
    config.local_rank = static_cast<int>(local);
  }
  if (config.size == 1) return config;
  config.master_address = variable("MASTER_ADDR", "");
  // A minimal host has no /etc/hosts to find this name in.
  if (config.master_address == "localhost") config.master_address = "127.0.0.1";
  if (config.master_address.empty()) {
    return fail(Code::kInvalid, "MASTER_ADDR is not set, though WORLD_SIZE is {}", size);
  }
  CAPSTAN_TRY(const std::int64_t port, integer_variable("MASTER_PORT", 1, 65535));
  config.master_port = static_cast<std::uint16_t>(port);
  config.run = variable("TORCHELASTIC_RUN_ID", "none") + "/" + variable("TORCHELASTIC_RESTART_COUNT", "0");
  return config;
}

Result<std::unique_ptr<Gang>> join_gang(const GangConfig& config) {
  if (config.size == 1) return std::unique_ptr<Gang>(std::make_unique<SoloGang>());
  std::signal(SIGPIPE,
              SIG_IGN);  // gloo writes to sockets whose peer may be gone; it reports that as an error
  RendezvousAddress address{config.master_address, config.master_port, config.run};
  std::unique_ptr<RendezvousServer> server;
  if (config.rank == 0) {
    CAPSTAN_TRY(server, RendezvousServer::start(address, config.size));
    address.port = server->port();
  }
  CAPSTAN_TRY(RendezvousClient client, RendezvousClient::connect(address, config.timeout_ms));
  CAPSTAN_TRY(const std::string host, client.local_address());
  CAPSTAN_TRY(std::unique_ptr<Gang> gang, connect_gang(config, client, host));
  // Rank 0 may close the store only when everybody has read from it: the barrier runs over gloo's own
  // connections.
  CAPSTAN_CHECK(gang->barrier());
  return gang;
}

}  // namespace capstan::trainer

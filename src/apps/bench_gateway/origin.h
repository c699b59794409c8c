// The origin and the gateway of `make bench-gateway`, each a process of its own.
#pragma once

namespace capstan::bench_gateway {

inline constexpr int kTokenIntervalMs = 20;  // 50 tokens a second and stream

// An OpenAI-like server: whole answers of about 250 bytes at once, streams token by token; a token's text holds when
// it was sent. Serve until standard input ends; print the port first.
int run_origin();
// The real gateway before that origin.
int run_gateway(int origin_port);

}  // namespace capstan::bench_gateway

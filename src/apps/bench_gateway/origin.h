// The origin of `make bench-gateway`, a process of its own.
#pragma once

#include "http/server.h"

namespace capstan::bench_gateway {

inline constexpr int kTokenIntervalMs = 20;  // 50 tokens a second and stream

// An OpenAI-like server: whole answers of about 250 bytes at once, streams token by token; a token's text holds when
// it was sent. Serves until standard input ends; prints the port first.
int run_origin();
int serve_until_end_of_input(const http::Router& router);

}  // namespace capstan::bench_gateway

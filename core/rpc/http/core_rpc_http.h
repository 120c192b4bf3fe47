/* core_rpc_http.h: the HTTP/JSON twin of the gRPC services (TRN-2), so that a shell script with curl can take part:
 *
 *     curl --unix-socket /run/gatehouse/core/admin.http.sock --json '{}' http://localhost/grpc.health.v1.Health/Check
 *
 * POST /<package>.<Service>/<Method> with one JSON object (no body: the empty message) in the proto3 JSON mapping. The
 * answer of a unary method is one JSON object, of a server stream application/x-ndjson, one object a line, sent as the
 * client reads. An error is {"error":{"category","code","message","origin","retryable","retryAfterMs","traceId"}} with
 * ERR-1's HTTP status; in a stream that has begun it is the last line. Client streams are `unsupported`.
 *
 * There is no second code path: each HTTP connection is a gRPC client of this same process over a socketpair that
 * carries the HTTP connection's identity. HTTP and JSON are handled on the I/O thread.
 *
 * Headers: `grpc-timeout` or `x-timeout-ms` (default: 30 s, none for streams); `authorization`, `traceparent`,
 * `tracestate` and all that begin with `gatehouse-` or `x-` become metadata; others do not travel. */
#ifndef GATEHOUSE_CORE_RPC_HTTP_H
#define GATEHOUSE_CORE_RPC_HTTP_H

#include "core/rpc/core_rpc.h"

/* As core_rpc_listen(). on_accept and on_close are called for the identity of each HTTP connection that makes a call:
 * on its first call, and when it is gone. Closing the listener ends its connections. */
struct core_rpc_listener *core_rpc_http_listen(struct core_rpc_loop *loop,
                                               const struct core_rpc_listen_options *options, struct error *err);

#endif

/* twin_internal.h: what the files of the HTTP/JSON twin share. Each field says which thread owns it; what crosses goes
 * through core_rpc_post() and core_rpc_io_post(), whose order makes the ownership safe. */
#ifndef GATEHOUSE_CORE_RPC_TWIN_INTERNAL_H
#define GATEHOUSE_CORE_RPC_TWIN_INTERNAL_H

#include "core/rpc/core_rpc_internal.h"
#include "core/rpc/http/core_rpc_http.h"
#include "sdk/http/http_server.h"
#include "sdk/wire/wire_registry.h"

struct twin_connection {
  struct core_rpc_listener *listener;
  struct core_rpc_peer identity;
  struct core_rpc_channel *channel;        /* core thread; made by the first call */
  struct http_server *server;              /* I/O thread; serves this one connection */
  unsigned calls;                          /* I/O thread; requests that are not finished */
  struct twin_connection *previous, *next; /* I/O thread; of the listener */
};

/* twin.c, I/O thread */
void twin_call_finished(struct twin_connection *connection);

/* twin_request.c: what an HTTP request asks for */

enum { TWIN_METADATA_MAX = 64 };

struct twin_question {
  const struct wire_method *method;
  grpc_byte_buffer *message;
  int64_t timeout_ms;
  struct core_rpc_metadata metadata[TWIN_METADATA_MAX]; /* keys and values in the request's arena */
  size_t metadata_count;
};

/* False: *status is the HTTP status to answer with (0: by category), err says why. */
bool twin_question_read(struct http_request *request, struct twin_question *question, int *status, struct error *err);

/* {"error":{…}} */
void twin_error_json(const struct error *err, struct buf *out);

/* twin_call.c, I/O thread: takes the request and answers it, now or later. */
void twin_call_begin(struct twin_connection *connection, struct http_request *request);

#endif

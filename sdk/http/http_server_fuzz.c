/* http_server_fuzz.c: libFuzzer target: bytes of a client, cut in two at a place the first byte says, into a real
 * server connection (HTTP/1.1 or HTTP/2 as the bytes choose) over a socket pair. Looks for crashes, leaks and lost
 * requests. */
#include <event2/event.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sdk/base/check.h"
#include "sdk/base/log.h"
#include "sdk/http/http_server.h"

static void on_request(void *context, struct http_request *request) {
  (void)context;
  struct buf *body = http_request_body(request);
  BASE_CHECK(http_request_path(request)[0] != '\0');
  http_request_query_value(request, "q");
  http_response_send(request, 200, "text/plain", body->data, body->length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct event_base *base;
  static struct http_server *server;
  if (base == NULL) {
    log_init("fuzz", LOG_FATAL);
    struct http_server_options options;
    http_server_options_init(&options);
    options.on_request = on_request;
    base = http_event_base_new();
    server = http_server_create(base, &options);
  }
  int pair[2];
  if (size < 1 || size > 65536 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
    return 0;
  size_t cut = 1 + data[0] % size;
  http_server_adopt_fd(server, pair[0], NULL, data + 1, cut - 1 < 30000 ? cut - 1 : 0, NULL);
  event_base_loop(base, EVLOOP_NONBLOCK);
  if (send(pair[1], data + cut, size - cut, MSG_NOSIGNAL) < 0)
    cut = size;
  event_base_loop(base, EVLOOP_NONBLOCK);
  close(pair[1]);
  for (int i = 0; i < 100 && http_server_connection_count(server) > 0; i++)
    event_base_loop(base, EVLOOP_NONBLOCK);
  BASE_CHECK(http_server_connection_count(server) == 0 && http_server_in_flight(server) == 0);
  return 0;
}

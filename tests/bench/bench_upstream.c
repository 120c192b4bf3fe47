/* bench_upstream.c: the fast REST service behind the gateway in the benchmarks, on sdk/http.
 *
 *   bench_upstream PORT    serves http://127.0.0.1:PORT; prints "ready"; until killed
 *
 * GET /items/<n> answers {"item":"<n>",…} of some 300 bytes; anything else is 404. */
#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/http/http_server.h"

#define PREFIX "/items/"
#define FILLER                                                                                                         \
  "The quick brown fox jumps over the lazy dog while the gateway watches; every byte of this sentence is carried "     \
  "from the upstream to the caller, and the caller looks for the number that it asked for in what it was given."

static void on_request(void *context, struct http_request *request) {
  (void)context;
  const char *path = http_request_path(request);
  char body[512];
  if (!str_starts_with(path, PREFIX) || strlen(path) > sizeof(PREFIX) + 32 ||
      strspn(path + strlen(PREFIX), "0123456789") != strlen(path + strlen(PREFIX))) {
    http_response_send(request, 404, "application/json", "{}", 2);
    return;
  }
  int length =
      snprintf(body, sizeof(body), "{\"item\":\"%s\",\"stock\":7,\"text\":\"" FILLER "\"}", path + strlen(PREFIX));
  http_response_send(request, 200, "application/json", body, (size_t)length);
}

int main(int argc, char **argv) {
  uint64_t port;
  if (argc != 2 || !str_parse_u64(argv[1], &port) || port > 65535) {
    fputs("usage: bench_upstream PORT\n", stderr);
    return 2;
  }
  log_init("upstream", LOG_WARN);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 1024) != 0) {
    perror("upstream");
    return EXIT_FAILURE;
  }
  struct event_base *base = http_event_base_new();
  struct http_server_options options;
  struct error err;
  http_server_options_init(&options);
  options.on_request = on_request;
  struct http_server *server = http_server_create(base, &options);
  if (!http_server_listen_fd(server, fd, NULL, &err)) {
    fprintf(stderr, "%s\n", err.message);
    return EXIT_FAILURE;
  }
  puts("ready");
  fflush(stdout);
  event_base_dispatch(base);
  http_server_free(&server);
  event_base_free(base);
  return EXIT_SUCCESS;
}

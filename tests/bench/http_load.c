/* http_load.c: HTTP/1.1 load over keep-alive connections that looks at every answer.
 *
 *   http_load ADDRESS PORT REQUEST-FILE EXPECT    commands on standard input (measure.h)
 *
 * REQUEST-FILE holds one whole request; each "@@@@@@@@" in it, and in EXPECT, becomes the eight digits of a number that
 * is new for every request. An answer is right when its status is 200 and its body, of known length or chunked,
 * contains EXPECT. OUTSTANDING is the number of connections. A pace sends one request per connection and tick, no
 * sooner than the last was answered. A connection that breaks, or a wrong answer, is an error; the first wrong answer
 * is shown. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/error.h"
#include "sdk/base/io.h"
#include "sdk/base/str.h"
#include "tests/bench/measure.h"

#define MARK "@@@@@@@@"
#define MARK_LENGTH 8
#define CONNECTIONS_MAX 1024
#define ANSWER_BYTES_MAX 65536
#define REQUEST_BYTES_MAX 65536
#define IDLE_MS_MAX 20000

struct connection {
  int fd;
  bool waiting;
  int64_t started_ns;
  size_t have;
  char *expect;
  char answer[ANSWER_BYTES_MAX + 1];
};

struct load {
  struct sockaddr_in address;
  struct buf request;
  const char *expect;
  uint32_t number;
  int epoll;
  struct connection *connections[CONNECTIONS_MAX];
  bool shown;
};

/* ---- requests ---- */

static void number_set(char *text, size_t length, const char *digits) {
  for (char *at = text; (at = memmem(at, length - (size_t)(at - text), MARK, MARK_LENGTH)) != NULL; at += MARK_LENGTH)
    memcpy(at, digits, MARK_LENGTH);
}

static bool connection_send(struct load *load, struct connection *connection) {
  char digits[16], copy[REQUEST_BYTES_MAX];
  snprintf(digits, sizeof(digits), "%08u", load->number++ % 100000000);
  memcpy(copy, load->request.data, load->request.length);
  number_set(copy, load->request.length, digits);
  memcpy(connection->expect, load->expect, strlen(load->expect));
  number_set(connection->expect, strlen(load->expect), digits);
  connection->have = 0;
  connection->waiting = true;
  connection->started_ns = measure_now_ns();
  return send(connection->fd, copy, load->request.length, MSG_NOSIGNAL) == (ssize_t)load->request.length;
}

static struct connection *connection_open(struct load *load) {
  struct connection *connection = BASE_NEW(struct connection);
  int on = 1;
  connection->have = 0;
  connection->waiting = false;
  connection->expect = base_strdup(load->expect);
  connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  struct epoll_event interest = {.events = EPOLLIN, .data.ptr = connection};
  if (connect(connection->fd, (struct sockaddr *)&load->address, sizeof(load->address)) != 0 ||
      !io_set_nonblocking(connection->fd, true) ||
      epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->fd, &interest) != 0) {
    perror("http_load: connect");
    exit(EXIT_FAILURE);
  }
  return connection;
}

static void connection_close(struct connection **connection) {
  if (*connection != NULL) {
    close((*connection)->fd);
    base_free((*connection)->expect);
    base_free(*connection);
    *connection = NULL;
  }
}

/* ---- answers ---- */

static const char *header_value(const char *head, const char *name) {
  for (const char *line = head; (line = strstr(line, "\r\n")) != NULL;) {
    line += 2;
    if (strncasecmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
      return line + strlen(name) + 1 + strspn(line + strlen(name) + 1, " ");
  }
  return NULL;
}

/* Is the answer complete? The body is found where head ends. */
static bool answer_is_complete(const struct connection *connection, const char **body) {
  const char *end = strstr(connection->answer, "\r\n\r\n");
  if (end == NULL)
    return false;
  *body = end + 4;
  size_t have = connection->have - (size_t)(*body - connection->answer);
  const char *length = header_value(connection->answer, "content-length");
  if (length != NULL && length < end)
    return have >= strtoul(length, NULL, 10);
  return have >= 5 && memcmp(connection->answer + connection->have - 5, "0\r\n\r\n", 5) == 0;
}

enum progress { WAITING, RIGHT, WRONG, BROKEN };

static enum progress connection_read(struct connection *connection) {
  const char *body;
  ssize_t count = recv(connection->fd, connection->answer + connection->have, ANSWER_BYTES_MAX - connection->have, 0);
  if (count < 0 && errno == EAGAIN)
    return WAITING;
  if (count <= 0)
    return BROKEN;
  connection->have += (size_t)count;
  connection->answer[connection->have] = '\0';
  if (!answer_is_complete(connection, &body))
    return connection->have == ANSWER_BYTES_MAX ? BROKEN : WAITING;
  connection->waiting = false;
  return str_starts_with(connection->answer, "HTTP/1.1 200 ") && strstr(body, connection->expect) ? RIGHT : WRONG;
}

/* ---- runs ---- */

static void show(struct load *load, const struct connection *connection, enum progress progress) {
  if (!load->shown)
    fprintf(stderr, "http_load: %s, expected %s:\n%.*s\n", progress == BROKEN ? "broken connection" : "wrong answer",
            connection->expect, (int)connection->have, connection->answer);
  load->shown = true;
}

/* Waits for answers, counts them; sends the next where again is set. Returns how many connections ended their turn. */
static unsigned turn(struct load *load, struct measure *measure, bool again) {
  struct epoll_event events[64];
  int count = epoll_wait(load->epoll, events, 64, IDLE_MS_MAX);
  unsigned ended = 0;
  if (count <= 0) {
    fputs("http_load: no answer\n", stderr);
    exit(EXIT_FAILURE);
  }
  for (int i = 0; i < count; i++) {
    struct connection *connection = events[i].data.ptr;
    enum progress progress = connection_read(connection);
    if (progress == WAITING)
      continue;
    measure_record(measure, connection->started_ns, progress == RIGHT);
    if (progress != RIGHT)
      show(load, connection, progress);
    if (progress == BROKEN)
      exit(EXIT_FAILURE);
    if (!again || !measure_is_open(measure) || !connection_send(load, connection))
      ended++;
  }
  return ended;
}

static void run_paced(struct load *load, struct measure *measure) {
  int64_t due = measure_now_ns();
  while (measure_is_open(measure)) {
    unsigned in_flight = measure->command.outstanding;
    for (unsigned i = 0; i < in_flight; i++)
      connection_send(load, load->connections[i]);
    while (in_flight > 0)
      in_flight -= turn(load, measure, false);
    due += measure->command.pace_us * 1000;
    const struct timespec until = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
  }
}

static void run(struct measure *measure, void *arg) {
  struct load *load = arg;
  unsigned in_flight = measure->command.outstanding;
  for (unsigned i = 0; i < in_flight; i++)
    load->connections[i] = connection_open(load);
  if (measure->command.pace_us > 0) {
    run_paced(load, measure);
  } else {
    for (unsigned i = 0; i < in_flight; i++)
      connection_send(load, load->connections[i]);
    while (in_flight > 0)
      in_flight -= turn(load, measure, true);
  }
  for (unsigned i = 0; i < measure->command.outstanding; i++)
    connection_close(&load->connections[i]);
}

int main(int argc, char **argv) {
  struct load load = {.address.sin_family = AF_INET, .number = 1, .epoll = epoll_create1(EPOLL_CLOEXEC)};
  struct error err;
  uint64_t port;
  if (argc != 5 || inet_pton(AF_INET, argv[1], &load.address.sin_addr) != 1 || !str_parse_u64(argv[2], &port) ||
      port > 65535 || !io_read_file(argv[3], REQUEST_BYTES_MAX, &load.request, &err)) {
    fputs("usage: http_load ADDRESS PORT REQUEST-FILE EXPECT\n", stderr);
    return 2;
  }
  load.address.sin_port = htons((uint16_t)port);
  load.expect = argv[4];
  int status = measure_serve_commands(run, &load);
  buf_free(&load.request);
  close(load.epoll);
  return status;
}

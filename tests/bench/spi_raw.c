/* spi_raw.c: the limit that the SPI is measured against: fixed-size messages over a Unix stream socket, one write and
 * one read each way, no framing, no protocol.
 *
 *   spi_raw serve PATH    one connection after the other, until killed
 *   spi_raw call PATH     commands on standard input (measure.h); one outstanding only */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/io.h"
#include "sdk/base/str.h"
#include "tests/bench/measure.h"

static bool read_all(int fd, uint8_t *target, size_t length) {
  for (size_t have = 0; have < length;) {
    ssize_t count = read(fd, target + have, length - have);
    if (count <= 0)
      return false;
    have += (size_t)count;
  }
  return true;
}

static int socket_on(const char *path, struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (!str_copy(address->sun_path, sizeof(address->sun_path), path))
    return -1;
  return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int serve(const char *path) {
  struct sockaddr_un address;
  int listener = socket_on(path, &address);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 8) != 0)
    return EXIT_FAILURE;
  puts("ready");
  fflush(stdout);
  for (int fd; (fd = accept(listener, NULL, NULL)) >= 0; close(fd)) {
    uint8_t request[MEASURE_REQUEST_BYTES], reply[MEASURE_REPLY_BYTES];
    while (read_all(fd, request, sizeof(request))) {
      measure_reply_fill(reply, request[0]);
      if (!io_write_all(fd, reply, sizeof(reply)))
        break;
    }
  }
  return EXIT_FAILURE;
}

static void run(struct measure *measure, void *arg) {
  int fd = *(int *)arg;
  uint8_t request[MEASURE_REQUEST_BYTES] = {0}, reply[MEASURE_REPLY_BYTES];
  int64_t due = measure_now_ns();
  while (measure_is_open(measure)) {
    int64_t start = measure_now_ns();
    request[0]++;
    bool ok = io_write_all(fd, request, sizeof(request)) && read_all(fd, reply, sizeof(reply));
    measure_record(measure, start, ok && measure_reply_is_right(reply, sizeof(reply), request[0]));
    if (!ok)
      return;
    if (measure->command.pace_us > 0) {
      due += measure->command.pace_us * 1000;
      const struct timespec until = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
  }
}

static int call(const char *path) {
  struct sockaddr_un address;
  int fd = socket_on(path, &address);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
    return EXIT_FAILURE;
  return measure_serve_commands(run, &fd);
}

int main(int argc, char **argv) {
  if (argc == 3 && str_equal(argv[1], "serve"))
    return serve(argv[2]);
  if (argc == 3 && str_equal(argv[1], "call"))
    return call(argv[2]);
  fputs("usage: spi_raw serve|call PATH\n", stderr);
  return 2;
}

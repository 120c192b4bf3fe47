/* line_service.c: the trivial service of the benchmark "supervise": answers each connection with its process id in one
 * line, and closes it. The socket is the one that was handed over (LISTEN_FDS), else it binds the path that is its
 * first argument, else ./service.sock. It is up as soon as a process can be: no libraries, no files, no allocation.
 * With a NOTIFY_SOCKET it says READY=1, as a module does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address_of(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
  return address;
}

static int listen_at(const char *path) {
  struct sockaddr_un address = address_of(path);
  unlink(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1024) ? -1 : fd;
}

static void say_ready(const char *path) {
  struct sockaddr_un address = address_of(path);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  (void)!sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof(address));
  close(fd);
}

int main(int argc, char **argv) {
  const char *path = argc > 1 && strchr(argv[1], '/') ? argv[1] : "./service.sock"; /* s6 passes a name */
  int fd = getenv("LISTEN_FDS") ? 3 : listen_at(path);
  char line[32];
  size_t length = (size_t)snprintf(line, sizeof(line), "%d\n", (int)getpid());
  if (fd < 0)
    return 100;
  if (getenv("NOTIFY_SOCKET"))
    say_ready(getenv("NOTIFY_SOCKET"));
  for (;;) {
    int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0) { /* a door that does not block, as the supervisor hands it over: wait at it */
      fd_set doors;
      FD_ZERO(&doors);
      FD_SET(fd, &doors);
      select(fd + 1, &doors, NULL, NULL, NULL);
      continue;
    }
    (void)!send(connection, line, length, MSG_NOSIGNAL);
    close(connection);
  }
}

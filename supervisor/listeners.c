/* listeners.c: public sockets, bound once. A socket that a service manager hands to us (LISTEN_FDS, LISTEN_FDNAMES)
 * under the name of a configured listener is taken instead of binding one. An address that is still held by children of
 * a supervisor that was just killed is tried again for a moment. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define HANDED_MAX 64 /* descriptors that a service manager may hand to us */
#define BIND_TRIES 40
#define BIND_PAUSE_US 50000

union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  struct sockaddr_un local;
};

static socklen_t make_address(const struct config_listener *config, union address *address) {
  memset(address, 0, sizeof(*address));
  if (config->address[0] == '/') {
    address->local.sun_family = AF_UNIX;
    str_copy(address->local.sun_path, sizeof(address->local.sun_path), config->address);
    return sizeof(address->local);
  }
  if (inet_pton(AF_INET, config->address, &address->v4.sin_addr) == 1) {
    address->v4.sin_family = AF_INET;
    address->v4.sin_port = htons((uint16_t)config->port);
    return sizeof(address->v4);
  }
  inet_pton(AF_INET6, config->address, &address->v6.sin6_addr);
  address->v6.sin6_family = AF_INET6;
  address->v6.sin6_port = htons((uint16_t)config->port);
  return sizeof(address->v6);
}

/* A socket file that nobody listens on is left from a killed supervisor. */
static void remove_stale(const char *path) {
  union address address = {.local.sun_family = AF_UNIX};
  struct stat status;
  if (lstat(path, &status) != 0 || !S_ISSOCK(status.st_mode))
    return;
  str_copy(address.local.sun_path, sizeof(address.local.sun_path), path);
  int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe >= 0 && connect(probe, &address.any, sizeof(address.local)) != 0 && errno == ECONNREFUSED)
    unlink(path);
  if (probe >= 0)
    close(probe);
}

static bool bind_with_patience(int fd, const union address *address, socklen_t length) {
  for (unsigned i = 0; i < BIND_TRIES; i++) {
    if (bind(fd, &address->any, length) == 0)
      return true;
    if (errno != EADDRINUSE)
      return false;
    usleep(BIND_PAUSE_US);
  }
  errno = EADDRINUSE;
  return false;
}

static bool bind_listener(struct listener *listener, struct error *err) {
  const struct config_listener *config = listener->config;
  union address address;
  socklen_t length = make_address(config, &address);
  int yes = 1;
  if (address.any.sa_family == AF_UNIX)
    remove_stale(config->address);
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0 && address.any.sa_family != AF_UNIX)
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (fd >= 0 && address.any.sa_family == AF_INET6)
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
  if (fd < 0 || !bind_with_patience(fd, &address, length) || listen(fd, (int)config->backlog) != 0) {
    int error = errno;
    if (fd >= 0)
      close(fd);
    return error_set(err, ERR_SUPERVISOR_LISTEN, "listener \"%s\" cannot be bound to %s port %lld: %s", config->name,
                     config->address, (long long)config->port, strerrorname_np(error));
  }
  listener->unlink_at_end = address.any.sa_family == AF_UNIX;
  listener->fd = spawn_descriptor_raise(fd);
  return listener->fd >= 0 || error_set(err, ERR_IO, "a descriptor cannot be kept: %s", strerrorname_np(errno));
}

static void read_address(struct listener *listener) {
  union address address = {0};
  socklen_t length = sizeof(address);
  str_copy(listener->address, sizeof(listener->address), listener->config->address);
  if (getsockname(listener->fd, &address.any, &length) != 0)
    return;
  if (address.any.sa_family == AF_INET) {
    listener->port = ntohs(address.v4.sin_port);
    inet_ntop(AF_INET, &address.v4.sin_addr, listener->address, sizeof(listener->address));
  } else if (address.any.sa_family == AF_INET6) {
    listener->port = ntohs(address.v6.sin6_port);
    inet_ntop(AF_INET6, &address.v6.sin6_addr, listener->address, sizeof(listener->address));
  }
}

/* Takes a handed descriptor when its name is one of ours and it is a listening stream socket. */
static bool adopt(const struct config *config, struct listener *listeners, const char *name, int fd) {
  int listening = 0;
  socklen_t length = sizeof(listening);
  for (size_t i = 0; i < config->listeners_count; i++) {
    if (!str_equal(config->listeners[i].name, name) || listeners[i].fd >= 0)
      continue;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || !listening)
      return false;
    listeners[i].fd = spawn_descriptor_raise(fd);
    return listeners[i].fd >= 0;
  }
  return false;
}

static void adopt_all(const struct config *config, struct listener *listeners) {
  uint64_t pid, count;
  const char *names = getenv("LISTEN_FDNAMES");
  if (!str_parse_u64(getenv("LISTEN_PID") ? getenv("LISTEN_PID") : "", &pid) || pid != (uint64_t)getpid() ||
      !str_parse_u64(getenv("LISTEN_FDS") ? getenv("LISTEN_FDS") : "", &count))
    return;
  for (int fd = 3; (uint64_t)fd < 3 + count && fd < 3 + HANDED_MAX; fd++) {
    char name[64] = "";
    if (names) {
      size_t part = strcspn(names, ":");
      snprintf(name, sizeof(name), "%.*s", (int)part, names);
      names = names[part] ? names + part + 1 : NULL;
    }
    if (adopt(config, listeners, name, fd))
      continue;
    log_event(LOG_WARN, "supervisor", "a socket that was handed to us has no listener in the configuration",
              LOG_TEXT("name", name));
    close(fd);
  }
}

bool listeners_open(struct supervisor *supervisor, struct error *err) {
  const struct config *config = supervisor->config;
  struct listener *listeners = supervisor->listeners;
  for (size_t i = 0; i < config->listeners_count; i++)
    listeners[i] = (struct listener){.config = &config->listeners[i], .fd = -1, .supervisor = supervisor};
  adopt_all(config, listeners);
  for (size_t i = 0; i < config->listeners_count; i++) {
    if (listeners[i].fd < 0 && !bind_listener(&listeners[i], err))
      return false;
    read_address(&listeners[i]);
    log_event(LOG_INFO, "supervisor", "listening", LOG_TEXT("listener", listeners[i].config->name),
              LOG_TEXT("address", listeners[i].address), LOG_INT("port", listeners[i].port));
  }
  return true;
}

void listeners_close(struct listener *listeners, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (listeners[i].fd < 0)
      continue;
    close(listeners[i].fd);
    listeners[i].fd = -1;
    if (listeners[i].unlink_at_end)
      unlink(listeners[i].config->address);
  }
}

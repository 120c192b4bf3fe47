/* listeners.c: public sockets, bound once. An address that is still held by children of a supervisor that was just
 * killed is tried again for a moment.
 *
 * A socket that a service manager hands to us (LISTEN_FDS, LISTEN_FDNAMES) is taken over instead of binding one. It
 * belongs to the listener of its name, which must then be configured for the address that it is bound to (any port,
 * where port 0 is configured); without such a name, to the listener with exactly its address. One that belongs to none,
 * is not a listening stream socket, or comes a second time is an error that names it: two descriptions of one door
 * that differ are not to be guessed about. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define HANDED_FIRST 3 /* SD_LISTEN_FDS_START */
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
    error_set(err, ERR_SUPERVISOR_LISTEN, "listener \"%s\" cannot be bound to %s port %lld: %s", config->name,
              config->address, (long long)config->port, strerrorname_np(error));
    errno = error; /* for ERRNO= upward */
    return false;
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

/* ---- sockets that are handed to us ----------------------------------------------------------------------------------
 */

int handed_parse(const char *for_pid, const char *count_text, const char *names, pid_t self,
                 struct handed handed[static HANDED_MAX], struct error *err) {
  uint64_t pid, count;
  if (!for_pid || !count_text)
    return 0;
  if (!str_parse_u64(for_pid, &pid) || !str_parse_u64(count_text, &count)) {
    error_set(err, ERR_SUPERVISOR_HANDED, "LISTEN_PID or LISTEN_FDS is no number");
    return -1;
  }
  if (pid != (uint64_t)self)
    return 0;
  if (count > HANDED_MAX) {
    error_set(err, ERR_SUPERVISOR_HANDED, "LISTEN_FDS says %llu sockets; %d are the most", (unsigned long long)count,
              HANDED_MAX);
    return -1;
  }
  for (int i = 0; i < (int)count; i++) {
    handed[i] = (struct handed){.fd = HANDED_FIRST + i};
    if (!names)
      continue;
    size_t part = strcspn(names, ":");
    snprintf(handed[i].name, sizeof(handed[i].name), "%.*s", part < sizeof(handed[i].name) ? (int)part : 0, names);
    names = names[part] ? names + part + 1 : NULL;
  }
  return (int)count;
}

static void show_address(const union address *address, char *target, size_t target_bytes) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address->any.sa_family == AF_INET) {
    inet_ntop(AF_INET, &address->v4.sin_addr, text, sizeof(text));
    snprintf(target, target_bytes, "%s port %u", text, (unsigned)ntohs(address->v4.sin_port));
  } else if (address->any.sa_family == AF_INET6) {
    inet_ntop(AF_INET6, &address->v6.sin6_addr, text, sizeof(text));
    snprintf(target, target_bytes, "%s port %u", text, (unsigned)ntohs(address->v6.sin6_port));
  } else {
    str_copy(target, target_bytes, address->local.sun_path);
  }
}

static bool address_fits(const struct config_listener *config, const union address *bound) {
  union address wanted;
  make_address(config, &wanted);
  if (wanted.any.sa_family != bound->any.sa_family)
    return false;
  switch (wanted.any.sa_family) {
  case AF_INET:
    return wanted.v4.sin_addr.s_addr == bound->v4.sin_addr.s_addr &&
           (config->port == 0 || wanted.v4.sin_port == bound->v4.sin_port);
  case AF_INET6:
    return memcmp(&wanted.v6.sin6_addr, &bound->v6.sin6_addr, sizeof(wanted.v6.sin6_addr)) == 0 &&
           (config->port == 0 || wanted.v6.sin6_port == bound->v6.sin6_port);
  default:
    return str_equal(wanted.local.sun_path, bound->local.sun_path);
  }
}

/* Where a handed socket is bound. False: it is no listening stream socket of a family that we know. */
static bool read_bound(int fd, union address *bound) {
  int listening = 0, type = 0;
  socklen_t length = sizeof(int);
  memset(bound, 0, sizeof(*bound));
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || !listening ||
      getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM)
    return false;
  length = sizeof(*bound) - 1; /* a path keeps its end */
  return getsockname(fd, &bound->any, &length) == 0 &&
         (bound->any.sa_family == AF_INET || bound->any.sa_family == AF_INET6 || bound->any.sa_family == AF_UNIX);
}

static struct listener *owner_of(struct listener *listeners, size_t count, const char *name,
                                 const union address *bound) {
  for (size_t i = 0; i < count; i++)
    if (str_equal(listeners[i].config->name, name))
      return &listeners[i];
  for (size_t i = 0; i < count; i++)
    if ((listeners[i].config->port != 0 || bound->any.sa_family == AF_UNIX) && address_fits(listeners[i].config, bound))
      return &listeners[i];
  return NULL;
}

static bool adopt(const struct handed *handed, struct listener *listeners, size_t count, struct error *err) {
  union address bound;
  char where[sizeof(bound.local.sun_path)];
  if (!read_bound(handed->fd, &bound))
    return error_set(err, ERR_SUPERVISOR_HANDED, "the socket \"%s\" (descriptor %d) does not listen for streams",
                     handed->name, handed->fd);
  show_address(&bound, where, sizeof(where));
  struct listener *listener = owner_of(listeners, count, handed->name, &bound);
  if (!listener)
    return error_set(err, ERR_SUPERVISOR_HANDED,
                     "the socket \"%s\" at %s has neither the name nor the address of a listener", handed->name, where);
  if (listener->fd >= 0)
    return error_set(err, ERR_SUPERVISOR_HANDED, "listener \"%s\" is handed two sockets; the second is at %s",
                     listener->config->name, where);
  if (!address_fits(listener->config, &bound))
    return error_set(err, ERR_SUPERVISOR_HANDED,
                     "the socket for listener \"%s\" is at %s, but %s port %lld is configured", listener->config->name,
                     where, listener->config->address, (long long)listener->config->port);
  int flags = fcntl(handed->fd, F_GETFL);
  if (flags < 0 || fcntl(handed->fd, F_SETFL, flags | O_NONBLOCK) != 0)
    return error_set(err, ERR_IO, "a socket that was handed over cannot be used: %s", strerrorname_np(errno));
  listener->fd = spawn_descriptor_raise(handed->fd);
  return listener->fd >= 0 || error_set(err, ERR_IO, "a descriptor cannot be kept: %s", strerrorname_np(errno));
}

static bool adopt_all(struct listener *listeners, size_t listener_count, struct error *err) {
  struct handed handed[HANDED_MAX];
  int count = handed_parse(getenv("LISTEN_PID"), getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"), getpid(), handed, err);
  for (int i = 0; i < count; i++)
    if (!adopt(&handed[i], listeners, listener_count, err))
      return false;
  return count >= 0;
}

bool listeners_open(struct supervisor *supervisor, struct error *err) {
  const struct config *config = supervisor->config;
  struct listener *listeners = supervisor->listeners;
  for (size_t i = 0; i < config->listeners_count; i++)
    listeners[i] = (struct listener){.config = &config->listeners[i], .fd = -1, .supervisor = supervisor};
  if (!adopt_all(listeners, config->listeners_count, err))
    return false;
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

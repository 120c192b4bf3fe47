/* listen.c: Unix sockets that this process listens on. gRPC does not accept: it would neither tell who connects nor
 * stop a second server from taking over the path (T5, T6). Here a lock file guards the path, the socket file gets its
 * owner and mode before anyone can connect, and its name when everyone can; the I/O thread accepts and asks the kernel
 * who that is, and the core thread hands the connection to gRPC. */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/log.h"

#define LISTENER_MAGIC 0xC04e115eu

enum { ACCEPT_BATCH = 64, ACCEPT_PAUSE_MS = 100, LISTEN_BACKLOG = 512 };

/* ---- accepting: I/O thread ---- */

struct accepted {
  struct core_rpc_listener *listener;
  int fd;
  struct core_rpc_peer identity;
};

/* Core thread. */
static void accepted_arrive(void *argument) {
  struct accepted accepted = *(struct accepted *)argument;
  base_free(argument);
  if (accepted.listener->closing || accepted.listener->loop->phase != LOOP_SERVING)
    close(accepted.fd);
  else
    (void)peer_connect(accepted.listener, accepted.fd, &accepted.identity);
}

static void listener_hand_over(struct core_rpc_listener *listener, int fd) {
  struct ucred credentials;
  socklen_t length = sizeof(credentials);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    close(fd);
    return;
  }
  const struct core_rpc_peer identity = {
      .uid = credentials.uid, .gid = credentials.gid, .pid = credentials.pid > 0 ? credentials.pid : 0};
  if (listener->take != NULL) {
    listener->take(listener, fd, &identity);
    return;
  }
  struct accepted *accepted = BASE_NEW(struct accepted);
  *accepted = (struct accepted){.listener = listener, .fd = fd, .identity = identity};
  if (!core_rpc_post(listener->loop, accepted_arrive, accepted)) {
    close(fd);
    base_free(accepted);
  }
}

static void listener_on_ready(evutil_socket_t fd, short what, void *argument) {
  struct core_rpc_listener *listener = argument;
  (void)what;
  for (int i = 0; i < ACCEPT_BATCH; i++) {
    int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection >= 0) {
      listener_hand_over(listener, connection);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      log_event(LOG_ERROR, RPC_ROOM, "out of descriptors; accepting pauses", LOG_TEXT("listener", listener->name));
      const struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
      event_del(listener->accept_event);
      event_add(listener->pause_event, &pause);
      return;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return;
    }
  }
}

static void listener_on_pause_over(evutil_socket_t fd, short what, void *argument) {
  struct core_rpc_listener *listener = argument;
  (void)fd;
  (void)what;
  event_add(listener->accept_event, NULL);
}

static void listener_attach_on_io(void *argument) {
  struct core_rpc_listener *listener = argument;
  struct event_base *base = listener->loop->io.base;
  listener->accept_event = event_new(base, listener->fd, EV_READ | EV_PERSIST, listener_on_ready, listener);
  listener->pause_event = evtimer_new(base, listener_on_pause_over, listener);
  BASE_CHECK(listener->accept_event != NULL && listener->pause_event != NULL);
  event_add(listener->accept_event, NULL);
}

/* Also called when the I/O thread has ended. */
static void listener_detach(struct core_rpc_listener *listener, bool end_at_once) {
  if (listener->end != NULL)
    listener->end(listener, end_at_once);
  if (listener->accept_event != NULL)
    event_free(BASE_TAKE(listener->accept_event));
  if (listener->pause_event != NULL)
    event_free(BASE_TAKE(listener->pause_event));
  if (listener->fd >= 0)
    close(listener->fd);
  if (listener->lock_fd >= 0)
    close(listener->lock_fd); /* gives the path free */
  listener->fd = listener->lock_fd = -1;
}

/* ---- opening ---- */

static bool listen_failed(struct error *err, const char *path, const char *step) {
  log_event(LOG_ERROR, RPC_ROOM, "cannot listen", LOG_TEXT("path", path), LOG_TEXT("step", step),
            LOG_TEXT("reason", strerrordesc_np(errno)));
  return error_set(err, ERR_RPC_LISTEN_FAILED, NULL);
}

static bool path_lock(struct core_rpc_listener *listener, struct error *err) {
  char *lock_path = base_asprintf("%s.lock", listener->path);
  listener->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  base_free(lock_path);
  if (listener->lock_fd < 0)
    return listen_failed(err, listener->path, "lock file");
  if (flock(listener->lock_fd, LOCK_EX | LOCK_NB) == 0)
    return true;
  log_event(LOG_ERROR, RPC_ROOM, "another process serves this socket", LOG_TEXT("path", listener->path));
  return error_set(err, ERR_RPC_LISTEN_BUSY, NULL);
}

/* Removes what a killed predecessor left: a socket, nothing else. The lock is held. */
static bool path_clear(const char *path) {
  struct stat status;
  if (lstat(path, &status) != 0)
    return errno == ENOENT;
  if (!S_ISSOCK(status.st_mode)) {
    errno = EEXIST;
    return false;
  }
  return unlink(path) == 0;
}

/* From a bound socket to one with its name. */
static bool socket_make_ready(struct core_rpc_listener *listener, const char *unready, struct error *err) {
  const struct core_rpc_listen_options *options = &listener->options;
  if (options->owner_uid != (uid_t)-1 || options->owner_gid != (gid_t)-1)
    if (lchown(unready, options->owner_uid, options->owner_gid) != 0)
      return listen_failed(err, listener->path, "owner");
  if (chmod(unready, options->mode != 0 ? options->mode : 0600) != 0)
    return listen_failed(err, listener->path, "mode");
  if (listen(listener->fd, LISTEN_BACKLOG) != 0)
    return listen_failed(err, listener->path, "listen");
  if (rename(unready, listener->path) != 0)
    return listen_failed(err, listener->path, "name");
  return true;
}

static bool socket_open(struct core_rpc_listener *listener, struct error *err) {
  struct sockaddr_un unready = {.sun_family = AF_UNIX};
  /* Under another name until it listens: who sees the socket's own name can connect. */
  if (snprintf(unready.sun_path, sizeof(unready.sun_path), "%s~", listener->path) >= (int)sizeof(unready.sun_path)) {
    errno = ENAMETOOLONG;
    return listen_failed(err, listener->path, "path");
  }
  if (!path_clear(listener->path) || !path_clear(unready.sun_path))
    return listen_failed(err, listener->path, "path");
  listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  /* The mode of an unbound socket becomes the file's at bind, so the file is never open to others, whatever the umask.
   */
  if (listener->fd < 0 || fchmod(listener->fd, 0600) != 0)
    return listen_failed(err, listener->path, "socket");
  if (bind(listener->fd, (const struct sockaddr *)&unready, sizeof(unready)) != 0)
    return listen_failed(err, listener->path, "bind");
  if (socket_make_ready(listener, unready.sun_path, err))
    return true;
  unlink(unready.sun_path);
  return false;
}

static void listener_free(struct core_rpc_listener *listener) {
  if (listener->previous != NULL)
    listener->previous->next = listener->next;
  else if (listener->loop->listeners == listener)
    listener->loop->listeners = listener->next;
  if (listener->next != NULL)
    listener->next->previous = listener->previous;
  listener_detach(listener, true);
  if (listener->free_taker != NULL)
    listener->free_taker(listener);
  base_free(listener->path);
  base_free(listener->name);
  listener->magic = 0;
  base_free(listener);
}

struct core_rpc_listener *core_rpc_listen(struct core_rpc_loop *loop, const struct core_rpc_listen_options *options,
                                          struct error *err) {
  return listener_open(loop, &(struct core_rpc_listener){.options = *options}, err);
}

struct core_rpc_listener *listener_open(struct core_rpc_loop *loop, const struct core_rpc_listener *form,
                                        struct error *err) {
  loop_check(loop);
  struct core_rpc_listener *listener = BASE_NEW(struct core_rpc_listener);
  *listener = (struct core_rpc_listener){.magic = LISTENER_MAGIC,
                                         .loop = loop,
                                         .options = form->options,
                                         .take = form->take,
                                         .taker = form->taker,
                                         .path = base_strdup(form->options.path),
                                         .name = base_strdup(form->options.name),
                                         .fd = -1,
                                         .lock_fd = -1,
                                         .owned = true,
                                         .references = 2};
  listener->options.path = listener->path;
  listener->options.name = listener->name;
  if (!path_lock(listener, err) || !socket_open(listener, err)) {
    listener_free(listener);
    return NULL;
  }
  listener->end = form->end;
  listener->free_taker = form->free_taker;
  listener->next = loop->listeners;
  if (listener->next != NULL)
    listener->next->previous = listener;
  loop->listeners = listener;
  bool posted = core_rpc_io_post(loop, listener_attach_on_io, listener);
  BASE_CHECK(posted);
  return listener;
}

bool core_rpc_listener_owner_set(struct core_rpc_listener *listener, uid_t uid, gid_t gid, struct error *err) {
  BASE_CHECK_MAGIC(listener, LISTENER_MAGIC);
  return lchown(listener->path, uid, gid) == 0 ||
         error_set(err, ERR_RPC_LISTEN_FAILED, "a socket cannot be given away: %s", strerrordesc_np(errno));
}

bool core_rpc_listener_mode_set(struct core_rpc_listener *listener, mode_t mode, struct error *err) {
  BASE_CHECK_MAGIC(listener, LISTENER_MAGIC);
  return chmod(listener->path, mode) == 0 ||
         error_set(err, ERR_RPC_LISTEN_FAILED, "the mode of a socket cannot be changed: %s", strerrordesc_np(errno));
}

/* ---- closing ---- */

void listener_release(struct core_rpc_listener *listener) {
  BASE_CHECK_MAGIC(listener, LISTENER_MAGIC);
  if (--listener->references == 0)
    listener_free(listener);
}

/* Core thread: connections that were posted before the I/O thread let go have arrived by now. */
static void listener_detached(void *argument) {
  listener_release(argument);
}

static void listener_detach_on_io(void *argument) {
  struct core_rpc_listener *listener = argument;
  listener_detach(listener, listener->disconnecting);
  (void)core_rpc_post(listener->loop, listener_detached, listener); /* false: listeners_free_all is to come */
}

static void listener_close(struct core_rpc_listener *listener) {
  if (listener->closing)
    return;
  listener->closing = true;
  (void)unlink(listener->path);
  bool posted = core_rpc_io_post(listener->loop, listener_detach_on_io, listener);
  BASE_CHECK(posted);
}

void core_rpc_listener_close(struct core_rpc_listener **listener_handle, bool connections_too) {
  struct core_rpc_listener *listener = BASE_TAKE(*listener_handle);
  if (listener == NULL)
    return;
  BASE_CHECK_MAGIC(listener, LISTENER_MAGIC);
  BASE_CHECK(listener->owned);
  if (connections_too)
    for (struct peer_entry *entry = listener->peers; entry != NULL; entry = entry->next)
      peer_disconnect(entry);
  listener->disconnecting = connections_too;
  listener_close(listener);
  listener->owned = false;
  listener_release(listener);
}

void listeners_close_all(struct core_rpc_loop *loop) {
  for (struct core_rpc_listener *listener = loop->listeners; listener != NULL; listener = listener->next)
    listener_close(listener);
}

void listeners_free_all(struct core_rpc_loop *loop) {
  while (loop->listeners != NULL) {
    struct core_rpc_listener *listener = loop->listeners;
    BASE_CHECK(listener->peers == NULL);
    if (!listener->closing)
      (void)unlink(listener->path);
    listener_free(listener);
  }
}

/* socket_calls.c: what gRPC asks of the kernel, without what it need not ask on a Unix socket.
 *
 * gRPC 1.51 was tuned for few streams over TCP. On Unix sockets with many calls it reads twice in vain after every
 * message, as there is no TCP_INQ; is woken whenever a peer reads, as it watches every socket for writability,
 * edge-triggered; and writes every reply and every request by itself, each of which wakes the peer. So here
 *  - TCP_INQ is answered for Unix sockets: a read that was shorter than the room offered has left nothing behind
 *    (epoll(7)), unless the kernel dropped something beside the bytes, or the poller has told of a hang-up: the end may
 *    have come in one edge with the bytes, and no other follows;
 *  - writability is watched only from a write that found the socket full until one that did not;
 *  - a burst is what the core thread does between two waits: for its sockets, or, while another thread of gRPC's waits
 *    for them (gRPC makes one when a socket is full), for that thread. The first write of a burst to a socket goes out
 * at once, the following ones together: by eights, or when the burst ends. They count as written, as if the kernel's
 * buffer were a little larger; a socket that fails meanwhile says so at its next use, for it is shut down. Descriptors
 * that a peer sends along are never accepted, as nothing in gRPC wants them. A socket that is closed while its peer
 * reads nothing loses what is pending, at most PENDING_BYTES_MAX, as it would lose what a peer never reads;
 *  - what is written to a peer that has gone counts as written: gRPC would end the connection at once, and with it what
 *    that peer had answered and nobody has read yet. The end comes by reading, behind all of that;
 *  - what went into a connection is counted for whoever made it (socket_tally): so it is known of a call whether its
 *    peer can have got any of it.
 *
 * The linker leads these calls of gRPC here (--wrap, CMakeLists.txt); whatever is not gRPC's use of a connected Unix
 * socket goes straight on. Writes may come from any thread of gRPC's, hence one lock for what is pending. Measured with
 * `./dev bench spi mcp`. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/rpc/socket_calls.h"
#include "sdk/base/alloc.h"

#ifndef TCP_INQ /* not in every libc's headers */
#define TCP_INQ 36
#endif
#define TCP_CM_INQ TCP_INQ
#define GRPC_POLL_EVENTS ((uint32_t)(EPOLLIN | EPOLLOUT | EPOLLET)) /* with which gRPC, and nobody else here, adds */
#define OUR_POLL_EVENTS ((uint32_t)(EPOLLIN | EPOLLRDHUP | EPOLLET))
#define HANG_UP_EVENTS ((uint32_t)(EPOLLRDHUP | EPOLLHUP | EPOLLERR))

enum {
  PAGE_ENTRIES = 1024,
  PAGES_MAX = 1024, /* descriptors above 2^20 are left as they are */
  PENDING_WRITES_MAX = 8,
  PENDING_BYTES_MAX = 16 * 1024,
  PENDING_SOCKETS_MAX = 256,
};

struct socket_tally {
  _Atomic unsigned owners; /* who made it, and its calls; the socket */
  _Atomic bool is_over;
  _Atomic uint64_t taken, sent; /* bytes: of gRPC; into the socket */
};

struct unix_socket {
  struct socket_tally *tally; /* NULL: nobody wants to know */
  bool tells_rest;            /* gRPC was told that it has TCP_INQ */
  _Atomic bool hung_up;       /* what is read ends with the end */
  bool polled;                /* it is in a poller of gRPC's */
  bool awaits_room;
  bool blocked; /* what is pending found it full */
  int poller;
  epoll_data_t data; /* gRPC's */
  uint64_t burst;    /* the last one that wrote to it */
  uint8_t *pending;  /* PENDING_BYTES_MAX */
  unsigned pending_bytes, pending_writes;
};

static _Atomic(struct unix_socket *) pages[PAGES_MAX];

static struct {
  pthread_mutex_t lock;
  uint64_t number;
  int sockets[PENDING_SOCKETS_MAX]; /* those with something pending */
  size_t count;
  _Atomic size_t blocked; /* how many of them are */
} bursts = {.lock = PTHREAD_MUTEX_INITIALIZER, .number = 1};

static _Thread_local bool has_bursts; /* this thread's waits end bursts */

static struct unix_socket *entry_find(int fd) {
  if (fd < 0 || fd >= PAGE_ENTRIES * PAGES_MAX)
    return NULL;
  struct unix_socket *page = atomic_load_explicit(&pages[fd / PAGE_ENTRIES], memory_order_acquire);
  return page ? &page[fd % PAGE_ENTRIES] : NULL;
}

static struct unix_socket *entry_make(int fd) {
  if (fd < 0 || fd >= PAGE_ENTRIES * PAGES_MAX)
    return NULL;
  _Atomic(struct unix_socket *) *slot = &pages[fd / PAGE_ENTRIES];
  struct unix_socket *page = atomic_load_explicit(slot, memory_order_acquire);
  if (!page) {
    struct unix_socket *fresh = base_calloc(PAGE_ENTRIES, sizeof(*fresh));
    if (atomic_compare_exchange_strong(slot, &page, fresh))
      page = fresh;
    else
      base_free(fresh);
  }
  return &page[fd % PAGE_ENTRIES];
}

static bool is_connected_unix(int fd) {
  struct sockaddr_un address;
  socklen_t length = sizeof(address);
  return getpeername(fd, (struct sockaddr *)&address, &length) == 0 && address.sun_family == AF_UNIX;
}

/* ---- what went into a connection ---- */

struct socket_tally *socket_tally_begin(int fd) {
  struct socket_tally *tally = BASE_NEW(struct socket_tally);
  struct unix_socket *entry = entry_make(fd);
  atomic_store(&tally->owners, entry ? 2 : 1);
  if (entry)
    entry->tally = tally;
  else
    atomic_store(&tally->sent, UINT64_MAX); /* nobody counts: anything may have been sent */
  return tally;
}

struct socket_tally *socket_tally_hold(struct socket_tally *tally) {
  atomic_fetch_add(&tally->owners, 1);
  return tally;
}

void socket_tally_release(struct socket_tally **holder) {
  struct socket_tally *tally = BASE_TAKE(*holder);
  if (tally && atomic_fetch_sub(&tally->owners, 1) == 1)
    base_free(tally);
}

uint64_t socket_tally_taken(const struct socket_tally *tally) {
  return atomic_load(&tally->taken);
}

bool socket_tally_is_over(const struct socket_tally *tally) {
  return atomic_load(&tally->is_over);
}

bool socket_tally_is_unsent(const struct socket_tally *tally, uint64_t taken) {
  return atomic_load(&tally->is_over) && atomic_load(&tally->sent) <= taken;
}

/* From here on nothing is sent any more: what is said of a call then stays true. */
static void tally_end(struct unix_socket *entry) {
  pthread_mutex_lock(&bursts.lock);
  if (entry->tally)
    atomic_store(&entry->tally->is_over, true);
  pthread_mutex_unlock(&bursts.lock);
}

/* ---- reading ---- */

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
  int result = __real_setsockopt(fd, level, name, value, length);
  if (result == 0 || level != IPPROTO_TCP || name != TCP_INQ || !is_connected_unix(fd))
    return result;
  struct unix_socket *entry = entry_make(fd);
  if (!entry)
    return result;
  entry->tells_rest = true;
  return 0;
}

static size_t message_bytes(const struct msghdr *message) {
  size_t bytes = 0;
  for (size_t i = 0; i < message->msg_iovlen; i++)
    bytes += message->msg_iov[i].iov_len;
  return bytes;
}

static void rest_tell(struct msghdr *message, int rest) {
  struct cmsghdr header = {.cmsg_len = CMSG_LEN(sizeof(rest)), .cmsg_level = IPPROTO_TCP, .cmsg_type = TCP_CM_INQ};
  memcpy(message->msg_control, &header, sizeof(header));
  memcpy((char *)message->msg_control + CMSG_LEN(0), &rest, sizeof(rest));
  message->msg_controllen = CMSG_SPACE(sizeof(rest));
}

static ssize_t receive(int fd, struct unix_socket *entry, struct msghdr *message, int flags) {
  ssize_t count = __real_recvmsg(fd, message, flags);
  bool ended = count == 0 || (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
  if (entry && entry->tally && ended)
    tally_end(entry);
  return count;
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags) {
  struct unix_socket *entry = entry_find(fd);
  if (!entry || !entry->tells_rest || !message->msg_control || message->msg_controllen < CMSG_SPACE(sizeof(int)))
    return receive(fd, entry, message, flags);
  struct msghdr bytes_only = *message;
  bytes_only.msg_control = NULL;
  bytes_only.msg_controllen = 0;
  ssize_t count = receive(fd, entry, &bytes_only, flags);
  message->msg_flags = 0;
  message->msg_controllen = 0;
  if (count > 0) {
    bool may_have_more =
        (size_t)count == message_bytes(message) || bytes_only.msg_flags & MSG_CTRUNC || atomic_load(&entry->hung_up);
    rest_tell(message, may_have_more ? 1 : 0);
  }
  return count;
}

/* ---- writing; with the lock held ---- */

static void room_await(int fd, struct unix_socket *entry, bool await) {
  if (entry->awaits_room == await || !entry->polled)
    return;
  int before = errno;
  struct epoll_event event = {.events = OUR_POLL_EVENTS | (await ? EPOLLOUT : 0), .data = entry->data};
  if (__real_epoll_ctl(entry->poller, EPOLL_CTL_MOD, fd, &event) == 0) /* this sees room that was made meanwhile */
    entry->awaits_room = await;
  errno = before;
}

/* Whoever only stops reading has not gone: no end would come by reading. */
static bool peer_has_gone(int fd) {
  struct pollfd end = {.fd = fd, .events = POLLRDHUP};
  int before = errno;
  bool gone = poll(&end, 1, 0) > 0 && end.revents & (POLLRDHUP | POLLHUP);
  errno = before;
  return gone;
}

static ssize_t write_now(int fd, struct unix_socket *entry, const struct msghdr *message, int flags) {
  struct socket_tally *tally = entry->tally;
  if (tally && atomic_load(&tally->is_over))
    return (ssize_t)message_bytes(message); /* into nothing */
  ssize_t count = __real_sendmsg(fd, message, flags);
  if (count >= 0) {
    room_await(fd, entry, false);
    if (tally)
      atomic_fetch_add(&tally->sent, (uint64_t)count);
  } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
    room_await(fd, entry, true);
  } else if (errno != EINTR && peer_has_gone(fd)) {
    room_await(fd, entry, false);
    return (ssize_t)message_bytes(message);
  }
  return count;
}

static void pending_leave(int fd, struct unix_socket *entry) {
  for (size_t i = 0; i < bursts.count; i++)
    if (bursts.sockets[i] == fd) {
      bursts.sockets[i] = bursts.sockets[--bursts.count];
      break;
    }
  if (entry->blocked)
    atomic_fetch_sub(&bursts.blocked, 1);
  entry->blocked = false;
  entry->pending_bytes = entry->pending_writes = 0;
}

/* Afterwards nothing is pending, or the socket is full and says when it no longer is. */
static void pending_write(int fd, struct unix_socket *entry) {
  struct iovec piece = {.iov_base = entry->pending, .iov_len = entry->pending_bytes};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  if (!entry->blocked) { /* before room is awaited: another thread's wait may end with it, and must look here then */
    entry->blocked = true;
    atomic_fetch_add(&bursts.blocked, 1);
  }
  while (piece.iov_len > 0) {
    ssize_t count = write_now(fd, entry, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      break;
    piece.iov_base = (uint8_t *)piece.iov_base + count;
    piece.iov_len -= (size_t)count;
  }
  if (piece.iov_len > 0 && entry->awaits_room) {
    memmove(entry->pending, piece.iov_base, piece.iov_len);
    entry->pending_bytes = (unsigned)piece.iov_len;
  } else {
    if (piece.iov_len > 0)
      (void)__real_shutdown(fd, SHUT_RDWR); /* nothing may follow what is lost */
    pending_leave(fd, entry);
  }
}

static bool pending_take(int fd, struct unix_socket *entry, const struct msghdr *message, size_t bytes) {
  if (entry->pending_bytes + bytes > PENDING_BYTES_MAX ||
      (entry->pending_bytes == 0 && bursts.count == PENDING_SOCKETS_MAX))
    return false;
  if (!entry->pending)
    entry->pending = base_alloc(PENDING_BYTES_MAX);
  if (entry->pending_bytes == 0)
    bursts.sockets[bursts.count++] = fd;
  for (size_t i = 0; i < message->msg_iovlen; i++) {
    memcpy(entry->pending + entry->pending_bytes, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
    entry->pending_bytes += (unsigned)message->msg_iov[i].iov_len;
  }
  if (++entry->pending_writes == PENDING_WRITES_MAX)
    pending_write(fd, entry);
  return true;
}

static ssize_t burst_write(int fd, struct unix_socket *entry, const struct msghdr *message, int flags) {
  size_t bytes = message_bytes(message);
  bool is_first = !has_bursts || entry->burst != bursts.number;
  entry->burst = has_bursts ? bursts.number : entry->burst;
  if (entry->pending_bytes == 0 && is_first)
    return write_now(fd, entry, message, flags);
  if (!entry->blocked && bytes > 0) {
    if (pending_take(fd, entry, message, bytes))
      return (ssize_t)bytes;
    if (entry->pending_bytes > 0)
      pending_write(fd, entry);
  }
  if (entry->pending_bytes == 0)
    return write_now(fd, entry, message, flags);
  errno = EAGAIN;
  return -1;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
  struct unix_socket *entry = entry_find(fd);
  if (!entry || (!entry->polled && !entry->tally))
    return __real_sendmsg(fd, message, flags);
  pthread_mutex_lock(&bursts.lock);
  ssize_t count = entry->polled && message->msg_controllen == 0 ? burst_write(fd, entry, message, flags)
                                                                : write_now(fd, entry, message, flags);
  if (count > 0 && entry->tally)
    atomic_fetch_add(&entry->tally->taken, (uint64_t)count);
  pthread_mutex_unlock(&bursts.lock);
  return count;
}

static void burst_end(void) {
  pthread_mutex_lock(&bursts.lock);
  bursts.number++;
  for (size_t i = bursts.count; i-- > 0;) {
    int fd = bursts.sockets[i];
    struct unix_socket *entry = entry_find(fd);
    if (!entry->blocked)
      pending_write(fd, entry);
  }
  pthread_mutex_unlock(&bursts.lock);
}

void socket_calls_bursts_set(bool on) {
  if (has_bursts && !on)
    burst_end();
  has_bursts = on;
}

/* ---- polling ---- */

int __wrap_epoll_ctl(int poller, int operation, int fd, struct epoll_event *event) {
  struct unix_socket *entry = NULL;
  if (operation == EPOLL_CTL_ADD && event && event->events == GRPC_POLL_EVENTS && is_connected_unix(fd))
    entry = entry_make(fd);
  if (!entry)
    return __real_epoll_ctl(poller, operation, fd, event);
  pthread_mutex_lock(&bursts.lock);
  entry->polled = true;
  entry->awaits_room = false;
  atomic_store(&entry->hung_up, false);
  entry->poller = poller;
  entry->data = event->data;
  pthread_mutex_unlock(&bursts.lock);
  struct epoll_event readable = {.events = OUR_POLL_EVENTS, .data = event->data};
  return __real_epoll_ctl(poller, operation, fd, &readable);
}

/* A socket that was full has room: what is pending goes first, then gRPC hears of it. */
static void blocked_write(int poller, const struct epoll_event *events, int count) {
  pthread_mutex_lock(&bursts.lock);
  for (size_t i = bursts.count; i-- > 0;) {
    int fd = bursts.sockets[i];
    struct unix_socket *entry = entry_find(fd);
    for (int j = 0; entry->blocked && entry->poller == poller && j < count; j++)
      if (events[j].data.u64 == entry->data.u64 && events[j].events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
        pending_write(fd, entry);
  }
  pthread_mutex_unlock(&bursts.lock);
}

/* Rare, so every socket may be looked at. */
static void hang_up_note(int poller, const struct epoll_event *event) {
  pthread_mutex_lock(&bursts.lock);
  for (size_t i = 0; i < PAGES_MAX; i++) {
    struct unix_socket *page = atomic_load_explicit(&pages[i], memory_order_acquire);
    for (size_t j = 0; page && j < PAGE_ENTRIES; j++)
      if (page[j].polled && page[j].poller == poller && page[j].data.u64 == event->data.u64)
        atomic_store(&page[j].hung_up, true);
  }
  pthread_mutex_unlock(&bursts.lock);
}

int __wrap_epoll_wait(int poller, struct epoll_event *events, int room, int timeout_ms) {
  if (has_bursts)
    burst_end();
  int count = __real_epoll_wait(poller, events, room, timeout_ms);
  if (count < 0 && errno == EINTR)
    return 0; /* gRPC would wait as long once more: signals that come sooner would keep every timer of the loop away */
  for (int i = 0; i < count; i++)
    if (events[i].events & HANG_UP_EVENTS)
      hang_up_note(poller, &events[i]);
  if (count > 0 && atomic_load_explicit(&bursts.blocked, memory_order_relaxed) > 0)
    blocked_write(poller, events, count);
  return count;
}

/* So gRPC's threads wait while another one polls. */
int __wrap_gpr_cv_wait(gpr_cv *condition, gpr_mu *lock, gpr_timespec deadline) {
  if (has_bursts)
    burst_end();
  return __real_gpr_cv_wait(condition, lock, deadline);
}

/* ---- the end of a socket ---- */

static void pending_settle(int fd, bool is_closed) {
  struct unix_socket *entry = entry_find(fd);
  if (!entry)
    return;
  pthread_mutex_lock(&bursts.lock);
  if (entry->pending_bytes > 0)
    pending_write(fd, entry);
  if (is_closed) {
    if (entry->pending_bytes > 0)
      pending_leave(fd, entry);
    base_free(entry->pending);
    if (entry->tally)
      atomic_store(&entry->tally->is_over, true);
    socket_tally_release(&entry->tally);
    entry->tells_rest = entry->polled = entry->awaits_room = false;
    entry->pending = NULL;
    entry->burst = 0;
  }
  pthread_mutex_unlock(&bursts.lock);
}

int __wrap_shutdown(int fd, int how) {
  pending_settle(fd, false);
  return __real_shutdown(fd, how);
}

int __wrap_close(int fd) {
  pending_settle(fd, true);
  return __real_close(fd);
}

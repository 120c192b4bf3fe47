/* socket_calls.c: what gRPC asks of the kernel, without what it need not ask on a Unix socket.
 *
 * gRPC 1.51 was tuned for TCP. On a Unix socket it finds no TCP_INQ and so reads twice in vain after every message; and
 * it watches every socket for writability, edge-triggered, which there means one more wake-up of the core each time the
 * peer reads. Both cost 11 % of the time of a call (measured: `./dev bench spi`, one outstanding, one core). Here
 *  - TCP_INQ is answered for Unix sockets: a read that was shorter than the room offered has left nothing behind
 *    (epoll(7)), unless the kernel dropped something beside the bytes;
 *  - writability is watched only from a write that found the socket full until one that did not.
 * Descriptors that a peer sends along are never accepted, as nothing in gRPC wants them.
 *
 * The linker leads these calls of gRPC here (--wrap, CMakeLists.txt); everything that is not gRPC's use of a connected
 * Unix socket goes straight on. An entry belongs to whoever owns the descriptor, so it needs no lock: gRPC makes, uses
 * and closes one under its own. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/alloc.h"

#ifndef TCP_INQ /* not in every libc's headers */
#define TCP_INQ 36
#endif
#define TCP_CM_INQ TCP_INQ
#define GRPC_POLL_EVENTS ((uint32_t)(EPOLLIN | EPOLLOUT | EPOLLET)) /* with which gRPC, and nobody else here, adds */

enum { PAGE_ENTRIES = 1024, PAGES_MAX = 1024 }; /* descriptors above 2^20 are left as they are */

struct unix_socket {
  bool tells_rest; /* gRPC was told that it has TCP_INQ */
  bool polled;     /* it is in a poller of gRPC's */
  bool awaits_room;
  int poller;
  epoll_data_t data; /* gRPC's */
};

static _Atomic(struct unix_socket *) pages[PAGES_MAX];

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

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t length);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t length);
ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
int __real_epoll_ctl(int poller, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int poller, int operation, int fd, struct epoll_event *event);
int __real_close(int fd);
int __wrap_close(int fd);

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

static size_t room_of(const struct msghdr *message) {
  size_t room = 0;
  for (size_t i = 0; i < message->msg_iovlen; i++)
    room += message->msg_iov[i].iov_len;
  return room;
}

static void rest_tell(struct msghdr *message, int rest) {
  struct cmsghdr header = {.cmsg_len = CMSG_LEN(sizeof(rest)), .cmsg_level = IPPROTO_TCP, .cmsg_type = TCP_CM_INQ};
  memcpy(message->msg_control, &header, sizeof(header));
  memcpy((char *)message->msg_control + CMSG_LEN(0), &rest, sizeof(rest));
  message->msg_controllen = CMSG_SPACE(sizeof(rest));
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags) {
  const struct unix_socket *entry = entry_find(fd);
  if (!entry || !entry->tells_rest || !message->msg_control || message->msg_controllen < CMSG_SPACE(sizeof(int)))
    return __real_recvmsg(fd, message, flags);
  struct msghdr bytes_only = *message;
  bytes_only.msg_control = NULL;
  bytes_only.msg_controllen = 0;
  ssize_t count = __real_recvmsg(fd, &bytes_only, flags);
  message->msg_flags = 0;
  message->msg_controllen = 0;
  if (count > 0)
    rest_tell(message, (size_t)count == room_of(message) || bytes_only.msg_flags & MSG_CTRUNC ? 1 : 0);
  return count;
}

static void room_await(int fd, struct unix_socket *entry, bool await) {
  int before = errno;
  struct epoll_event event = {.events = (uint32_t)(EPOLLIN | EPOLLET) | (await ? EPOLLOUT : 0), .data = entry->data};
  if (__real_epoll_ctl(entry->poller, EPOLL_CTL_MOD, fd, &event) == 0)
    entry->awaits_room = await;
  errno = before;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
  ssize_t count = __real_sendmsg(fd, message, flags);
  struct unix_socket *entry = entry_find(fd);
  if (entry && entry->polled) {
    bool full = count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    if (full != entry->awaits_room && (full || count >= 0))
      room_await(fd, entry, full); /* a change looks at the socket anew, so room made meanwhile is seen */
  }
  return count;
}

int __wrap_epoll_ctl(int poller, int operation, int fd, struct epoll_event *event) {
  struct unix_socket *entry = NULL;
  if (operation == EPOLL_CTL_ADD && event && event->events == GRPC_POLL_EVENTS && is_connected_unix(fd))
    entry = entry_make(fd);
  if (!entry)
    return __real_epoll_ctl(poller, operation, fd, event);
  entry->polled = true;
  entry->awaits_room = false;
  entry->poller = poller;
  entry->data = event->data;
  struct epoll_event readable = {.events = (uint32_t)(EPOLLIN | EPOLLET), .data = event->data};
  return __real_epoll_ctl(poller, operation, fd, &readable);
}

int __wrap_close(int fd) {
  struct unix_socket *entry = entry_find(fd);
  if (entry)
    *entry = (struct unix_socket){0};
  return __real_close(fd);
}

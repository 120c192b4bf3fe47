/* peer.c: who is at the other end of a connection (TRN-4, T6).
 *
 * gRPC names a call's connection "fd:<number>" and nothing else, so the number is the key to the identity that the
 * kernel told at accept. A number that was reused at once could lend a new connection's identity to a late call of an
 * old one; so each connection is moved to a number above all earlier ones, which come round again only after the whole
 * range. What is closed stays known for a while, for calls that gRPC has read but not delivered; a call of an unknown
 * number is refused. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uthash.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

enum {
  NUMBER_FIRST = 4096, /* below: everybody else's descriptors */
  CLOSED_KEPT = 1024,  /* closed connections whose identity is still known */
};

struct number_slot {
  int fd;
  struct peer_entry *entry;
  UT_hash_handle hh;
};

struct peer_table {
  struct number_slot *by_number;
  int next_number;
  uint64_t connections;
  int closed[CLOSED_KEPT]; /* ring of descriptor numbers; 0: free */
  size_t closed_next;
};

struct peer_table *peer_table_create(void) {
  return BASE_NEW(struct peer_table);
}

static struct number_slot *number_find(struct peer_table *table, int fd) {
  struct number_slot *slot;
  HASH_FIND_INT(table->by_number, &fd, slot);
  return slot;
}

static void number_forget(struct peer_table *table, struct number_slot *slot) {
  struct peer_entry *entry = slot->entry;
  HASH_DEL(table->by_number, slot);
  base_free(slot);
  peer_release(entry);
}

void peer_table_free(struct peer_table **table_handle) {
  struct peer_table *table = BASE_TAKE(*table_handle);
  struct number_slot *slot, *next;
  HASH_ITER(hh, table->by_number, slot, next) {
    number_forget(table, slot);
  }
  base_free(table);
}

static void number_assign(struct peer_table *table, struct peer_entry *entry) {
  struct number_slot *slot = number_find(table, entry->fd);
  if (slot != NULL) /* the range came round: the old connection ended long ago */
    number_forget(table, slot);
  slot = BASE_NEW(struct number_slot);
  *slot = (struct number_slot){.fd = entry->fd, .entry = entry};
  entry->references++;
  HASH_ADD_INT(table->by_number, fd, slot);
}

static int number_first(void) {
  struct rlimit limit;
  bool few = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 2 * NUMBER_FIRST;
  return few ? (int)limit.rlim_cur / 2 : NUMBER_FIRST;
}

/* Makes the kernel's table of descriptors large enough while there is one thread: later it waits for every processor
 * (an RCU grace period, 10 ms and more), and the core thread with it. */
void peer_numbers_prepare(void) {
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, number_first());
  if (high >= 0)
    close(high);
  if (fd >= 0)
    close(fd);
}

/* Moves fd to the next never-used number, or the first free one after the whole range was used. -1: out of descriptors.
 */
static int number_take(struct peer_table *table, int fd) {
  int first = number_first();
  if (table->next_number < first)
    table->next_number = first;
  int moved = fcntl(fd, F_DUPFD_CLOEXEC, table->next_number);
  if (moved < 0 && (errno == EINVAL || errno == EMFILE))
    moved = fcntl(fd, F_DUPFD_CLOEXEC, first);
  if (moved >= 0)
    table->next_number = moved + 1;
  close(fd);
  return moved;
}

static void listener_link(struct peer_entry *entry) {
  struct core_rpc_listener *listener = entry->listener;
  listener->references++;
  entry->next = listener->peers;
  if (entry->next != NULL)
    entry->next->previous = entry;
  listener->peers = entry;
}

static void listener_unlink(struct peer_entry *entry) {
  if (entry->previous != NULL)
    entry->previous->next = entry->next;
  else
    entry->listener->peers = entry->next;
  if (entry->next != NULL)
    entry->next->previous = entry->previous;
}

bool peer_connect(struct core_rpc_listener *listener, int fd, const struct core_rpc_peer *identity) {
  struct core_rpc_loop *loop = listener->loop;
  struct peer_table *table = loop->peers;
  int number = number_take(table, fd);
  int watched = number < 0 ? -1 : fcntl(number, F_DUPFD_CLOEXEC, 3);
  if (watched < 0) {
    log_event(LOG_ERROR, RPC_ROOM, "out of descriptors; connection refused", LOG_TEXT("listener", listener->name));
    if (number >= 0)
      close(number);
    return false;
  }
  struct peer_entry *entry = BASE_NEW(struct peer_entry);
  entry->peer = *identity;
  entry->peer.listener = listener->name;
  entry->peer.connection = ++table->connections;
  entry->listener = listener;
  entry->fd = number;
  entry->references = 1; /* the hang-up watch's, given back by peer_closed */
  listener_link(entry);
  const struct core_rpc_listen_options *options = &listener->options;
  if (options->on_accept != NULL && !options->on_accept(&entry->peer, options->user)) {
    log_event(LOG_WARN, RPC_ROOM, "connection refused", LOG_TEXT("listener", listener->name),
              LOG_INT("uid", entry->peer.uid), LOG_INT("pid", entry->peer.pid));
    close(watched);
    close(number);
    peer_release(entry);
    return false;
  }
  number_assign(table, entry);
  entry->hangup = hangup_add(loop->hangups, watched, entry);
  grpc_server_add_channel_from_fd(loop->server, number, loop->credentials);
  return true;
}

void peer_closed(struct peer_entry *entry) {
  struct core_rpc_listener *listener = entry->listener;
  struct peer_table *table = listener->loop->peers;
  entry->closed = true;
  entry->hangup = NULL;
  const struct core_rpc_listen_options *options = &listener->options;
  if (options->on_close != NULL)
    options->on_close(&entry->peer, options->user);
  int *oldest = &table->closed[table->closed_next];
  table->closed_next = (table->closed_next + 1) % CLOSED_KEPT;
  struct number_slot *slot = *oldest != 0 ? number_find(table, *oldest) : NULL;
  if (slot != NULL && slot->entry->closed)
    number_forget(table, slot);
  *oldest = entry->fd;
  peer_release(entry);
}

void peer_disconnect(struct peer_entry *entry) {
  if (entry->hangup != NULL)
    hangup_disconnect(entry->hangup);
}

void peer_release(struct peer_entry *entry) {
  BASE_CHECK(entry->references > 0);
  if (--entry->references > 0)
    return;
  struct core_rpc_listener *listener = entry->listener;
  listener_unlink(entry);
  base_free(entry);
  listener_release(listener);
}

struct peer_entry *peer_of_call(struct core_rpc_loop *loop, grpc_call *call) {
  char *name = grpc_call_get_peer(call);
  if (name == NULL)
    return NULL;
  uint64_t number = 0;
  bool known = str_starts_with(name, "fd:") && str_parse_u64(name + 3, &number) && number <= INT32_MAX;
  gpr_free(name);
  struct number_slot *slot = known ? number_find(loop->peers, (int)number) : NULL;
  if (slot == NULL)
    return NULL;
  slot->entry->references++;
  return slot->entry;
}

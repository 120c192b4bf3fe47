/* socket_calls.h: the calls of gRPC that socket_calls.c answers (the linker's --wrap), its one switch, and what it
 * knows of a connection. */
#ifndef GATEHOUSE_CORE_RPC_SOCKET_CALLS_H
#define GATEHOUSE_CORE_RPC_SOCKET_CALLS_H

#include <grpc/support/sync.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* From now on what this thread writes between two waits (epoll_wait(), gpr_cv_wait()) may go out together, at the
 * next one at the latest; off: writes what is pending. One thread only has it on; off before that thread stops waiting.
 */
void socket_calls_bursts_set(bool on);

/* What went into a connection. Begun by who made it, before gRPC has the descriptor; lives as long as one of its owners
 * does, and any thread may ask. */
struct socket_tally;
struct socket_tally *socket_tally_begin(int fd);
struct socket_tally *socket_tally_hold(struct socket_tally *tally); /* one owner more */
void socket_tally_release(struct socket_tally **tally);             /* NULL-safe, nulls */
/* The bytes that gRPC has written until now: those of what begins now come behind them. */
uint64_t socket_tally_taken(const struct socket_tally *tally);
/* The end of the connection was read, or it was closed here. Nothing goes into it any more. */
bool socket_tally_is_over(const struct socket_tally *tally);
/* It is over, and nothing behind that point went into the socket. */
bool socket_tally_is_unsent(const struct socket_tally *tally, uint64_t taken);

#define SOCKET_CALL(type_, name_, ...)                                                                                 \
  type_ __real_##name_(__VA_ARGS__);                                                                                   \
  type_ __wrap_##name_(__VA_ARGS__);
SOCKET_CALL(int, setsockopt, int fd, int level, int name, const void *value, socklen_t length)
SOCKET_CALL(ssize_t, recvmsg, int fd, struct msghdr *message, int flags)
SOCKET_CALL(ssize_t, sendmsg, int fd, const struct msghdr *message, int flags)
SOCKET_CALL(int, epoll_ctl, int poller, int operation, int fd, struct epoll_event *event)
SOCKET_CALL(int, epoll_wait, int poller, struct epoll_event *events, int room, int timeout_ms)
SOCKET_CALL(int, gpr_cv_wait, gpr_cv *condition, gpr_mu *lock, gpr_timespec deadline)
SOCKET_CALL(int, shutdown, int fd, int how)
SOCKET_CALL(int, close, int fd)
#undef SOCKET_CALL

#endif

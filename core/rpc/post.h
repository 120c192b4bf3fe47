/* post.h: a queue of closures: many threads push, one thread runs them. Free of gRPC and of libevent, so that it can be
 * tested under ThreadSanitizer. The thread that turns the queue from empty to not empty calls wake() once, so there is
 * at most one wake under way; the consumer runs post_queue_run() for each wake and at no other time. */
#ifndef GATEHOUSE_CORE_RPC_POST_H
#define GATEHOUSE_CORE_RPC_POST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct post_node;

struct post_queue {
  _Atomic(struct post_node *) newest; /* a stack; the consumer reverses it */
  atomic_uint pushing;                /* threads inside post_queue_push */
  void (*wake)(void *argument);
  void *wake_argument;
};

void post_queue_init(struct post_queue *queue, void (*wake)(void *argument), void *wake_argument);
/* Any thread. False: closed, nothing will run. Tasks of one thread run in the order of pushing. */
bool post_queue_push(struct post_queue *queue, void (*task)(void *argument), void *argument);
/* Consumer, once per wake: runs everything that is queued now; what tasks push meanwhile comes with the next wake. */
size_t post_queue_run(struct post_queue *queue);
/* Consumer: closes an empty queue and waits until no thread is inside push. False: not empty, a wake is still to come.
 */
bool post_queue_close(struct post_queue *queue);

#endif

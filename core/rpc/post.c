/* post.c: the multi-producer queue behind core_rpc_post() and core_rpc_io_post().
 *
 * A push is one allocation and one compare-and-swap on the head of a stack; the consumer takes the whole stack at once,
 * so there is no ABA problem. Closing puts a sentinel on an empty stack: from then on a push answers false. */
#include "core/rpc/post.h"

#include <sched.h>

#include "sdk/base/alloc.h"

struct post_node {
  struct post_node *next;
  void (*task)(void *argument);
  void *argument;
};

static struct post_node post_closed;

void post_queue_init(struct post_queue *queue, void (*wake)(void *argument), void *wake_argument) {
  atomic_init(&queue->newest, NULL);
  atomic_init(&queue->pushing, 0);
  queue->wake = wake;
  queue->wake_argument = wake_argument;
}

bool post_queue_push(struct post_queue *queue, void (*task)(void *argument), void *argument) {
  atomic_fetch_add_explicit(&queue->pushing, 1, memory_order_acquire);
  struct post_node *node = base_alloc(sizeof(*node));
  *node = (struct post_node){.task = task, .argument = argument};
  struct post_node *newest = atomic_load_explicit(&queue->newest, memory_order_relaxed);
  do {
    if (newest == &post_closed)
      break;
    node->next = newest;
  } while (!atomic_compare_exchange_weak_explicit(&queue->newest, &newest, node, memory_order_acq_rel,
                                                  memory_order_relaxed));
  bool open = newest != &post_closed;
  if (!open)
    base_free(node);
  else if (newest == NULL)
    queue->wake(queue->wake_argument);
  atomic_fetch_sub_explicit(&queue->pushing, 1, memory_order_release);
  return open;
}

size_t post_queue_run(struct post_queue *queue) {
  struct post_node *node = atomic_load_explicit(&queue->newest, memory_order_relaxed);
  if (node == NULL || node == &post_closed)
    return 0;
  node = atomic_exchange_explicit(&queue->newest, NULL, memory_order_acquire);
  struct post_node *oldest = NULL;
  while (node != NULL) {
    struct post_node *next = node->next;
    node->next = oldest;
    oldest = node;
    node = next;
  }
  size_t count = 0;
  while (oldest != NULL) {
    node = oldest;
    oldest = node->next;
    node->task(node->argument);
    base_free(node);
    count++;
  }
  return count;
}

bool post_queue_close(struct post_queue *queue) {
  struct post_node *newest = NULL;
  if (!atomic_compare_exchange_strong(&queue->newest, &newest, &post_closed) && newest != &post_closed)
    return false;
  while (atomic_load_explicit(&queue->pushing, memory_order_acquire) != 0)
    sched_yield(); /* a pusher is between its compare-and-swap and its return: a few instructions */
  return true;
}

/* work.c: things to do later in the same turn of the loop, so that no callback runs inside the function that caused it.
 * The runner may free the list: it is not touched after the last item ran. */
#include "sdk/rpc/rpc_internal.h"

static void worklist_run(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct rpc_worklist *list = arg;
  struct rpc_work *work = TAILQ_FIRST(&list->items);
  if (work == NULL)
    return;
  TAILQ_REMOVE(&list->items, work, link);
  work->queued = false;
  if (!TAILQ_EMPTY(&list->items))
    event_active(&list->event, EV_TIMEOUT, 0); /* one item a call: the next stays pending if this one frees the list */
  list->run(work, list->arg);
}

void rpc_worklist_init(struct rpc_worklist *list, struct event_base *base,
                       void (*run)(struct rpc_work *work, void *arg), void *arg) {
  TAILQ_INIT(&list->items);
  list->run = run;
  list->arg = arg;
  BASE_CHECK(event_assign(&list->event, base, -1, 0, worklist_run, list) == 0);
}

void rpc_worklist_free(struct rpc_worklist *list) {
  BASE_CHECK(TAILQ_EMPTY(&list->items));
  event_del(&list->event);
}

void rpc_work_queue(struct rpc_worklist *list, struct rpc_work *work) {
  if (work->queued)
    return;
  work->queued = true;
  TAILQ_INSERT_TAIL(&list->items, work, link);
  event_active(&list->event, EV_TIMEOUT, 0);
}

void rpc_work_cancel(struct rpc_worklist *list, struct rpc_work *work) {
  if (!work->queued)
    return;
  work->queued = false;
  TAILQ_REMOVE(&list->items, work, link);
}

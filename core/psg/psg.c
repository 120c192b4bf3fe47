/* psg.c: life of the graph. Opening loads it, closes what the run before left open, and begins a run; closing ends the
 * run and leaves a checkpoint.
 *
 * A core that was killed is away until it serves again, and of all it reads the graph takes longest while nobody asks
 * for it before the first invocation: so it is loaded on a thread of its own, beside the rest of the start and the
 * modules' attaching. Until that thread is joined nobody else touches the graph; whoever needs it waits. */
#include "core/psg/psg_internal.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "sdk/base/crash.h"
#include "sdk/base/log.h"

#define FLUSH_DEFAULT_MS 5
#define HISTORY_DEFAULT 4096

/* ---- loading ---- */

static void graph_load(struct psg *psg, struct store *store) {
  if (!psg_genesis_load(psg, store, &psg->load.fresh, &psg->load.err))
    return;
  psg_runs_index(psg);
  psg_executions_index(psg);
  psg_modules_index(psg);
}

static void *loader_main(void *arg) {
  struct psg *psg = arg;
  if (store_reader_begin(psg->load.reader, &psg->load.err))
    graph_load(psg, psg->load.reader);
  atomic_store(&psg->load.done, true);
  psg->options.wake(psg->options.wake_arg);
  return NULL;
}

static bool loader_start(struct psg *psg, struct error *err) {
  sigset_t before; /* signals belong to the core thread */
  clock_gettime(CLOCK_MONOTONIC, &psg->load.wait_until);
  psg->load.wait_until.tv_nsec += PSG_LOAD_WAIT_MS * 1000000L;
  psg->load.wait_until.tv_sec += psg->load.wait_until.tv_nsec / 1000000000L;
  psg->load.wait_until.tv_nsec %= 1000000000L;
  psg->load.reader = store_reader_create(psg->options.store);
  crash_signals_block_others(&before);
  psg->load.running = pthread_create(&psg->load.thread, NULL, loader_main, psg) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (psg->load.running)
    return true;
  store_reader_close(&psg->load.reader);
  return error_set(err, ERR_INTERNAL, "The thread that loads the state graph cannot be started.");
}

/* What is done with the loaded graph, on the core thread. */
static void run_start(struct psg *psg) {
  struct core_rpc_loop *loop = psg->options.loop;
  psg->options.loop = NULL; /* no timers while it is not whole */
  if (!error_is_set(&psg->load.err) && psg_genesis_make(psg, psg->load.fresh, &psg->load.err)) {
    psg_executions_abandon(psg, PSG_EXECUTION_FAILED, "core.restarted");
    psg_modules_abandon(psg, "failed", "core.restarted");
    psg_run_begin(psg);
    if (!psg->options.wake)
      psg_commit_now(psg, false, &psg->load.err);
  }
  psg->options.loop = loop;
  psg_transitions_deferred(psg, !error_is_set(&psg->load.err));
  if (error_is_set(&psg->load.err) || !loop)
    return;
  psg_flush(psg);
  psg_checkpoint_idle(psg);
}

/* False: the thread goes on and the time that others may wait for it is over. */
static bool loader_join(struct psg *psg, bool patient) {
  if (!psg->load.running)
    return true;
  int result = patient || atomic_load(&psg->load.done)
                   ? pthread_join(psg->load.thread, NULL)
                   : pthread_clockjoin_np(psg->load.thread, NULL, CLOCK_MONOTONIC, &psg->load.wait_until);
  if (result == ETIMEDOUT)
    return false;
  BASE_CHECK(result == 0);
  psg->load.running = false;
  store_reader_close(&psg->load.reader);
  run_start(psg);
  return true;
}

bool psg_wait(struct psg *psg, struct error *err) {
  BASE_CHECK_MAGIC(psg, PSG_MAGIC);
  if (!loader_join(psg, false))
    return error_set(err, ERR_UNAVAILABLE, "The state graph is still being loaded.");
  if (!error_is_set(&psg->load.err))
    return true;
  if (err)
    *err = psg->load.err;
  return false;
}

/* ---- open and close ---- */

static void psg_free(struct psg *psg) {
  psg_modules_free(psg);
  psg_graph_clear(&psg->graph);
  psg_journal_free(psg);
  psg->magic = 0;
  base_free(psg);
}

struct psg *psg_open(const struct psg_options *options, struct error *err) {
  struct psg *psg = BASE_NEW(struct psg);
  psg->magic = PSG_MAGIC;
  psg->options = *options;
  psg->options.flush_ms = options->flush_ms ? options->flush_ms : FLUSH_DEFAULT_MS;
  psg->options.execution_history = options->execution_history ? options->execution_history : HISTORY_DEFAULT;
  id_pool_uuid_v4(&psg->ids, psg->run_id);
  if (options->loop && options->wake) {
    if (loader_start(psg, err))
      return psg;
  } else {
    graph_load(psg, options->store);
    run_start(psg);
    if (psg_wait(psg, err))
      return psg;
  }
  psg_free(psg);
  return NULL;
}

void psg_close(struct psg **psg_pointer) {
  struct psg *psg = BASE_TAKE(*psg_pointer);
  struct error err = {0};
  if (!psg)
    return;
  BASE_CHECK_MAGIC(psg, PSG_MAGIC);
  loader_join(psg, true);
  if (psg_wait(psg, NULL)) {
    psg_executions_abandon(psg, PSG_EXECUTION_CANCELLED, "core.stopped");
    psg_modules_abandon(psg, "completed", "core.stopped");
    psg_run_end(psg);
    if (!psg_commit_now(psg, true, &err))
      log_error_value(LOG_ERROR, "psg", "the end of the run could not be recorded", &err);
  }
  psg_free(psg);
}

const char *psg_graph_id(struct psg *psg) {
  return psg_wait(psg, NULL) ? psg->graph_id : "";
}

uint64_t psg_node_count(struct psg *psg) {
  return psg_wait(psg, NULL) ? HASH_COUNT(psg->graph.nodes) : 0;
}

uint64_t psg_edge_count(struct psg *psg) {
  return psg_wait(psg, NULL) ? HASH_COUNT(psg->graph.edges) : 0;
}

/* psg.c: life of the graph. Opening loads it, closes what the run before left open, and begins a run; closing ends the
 * run and leaves a checkpoint. */
#include "core/psg/psg_internal.h"

#include "sdk/base/log.h"

#define FLUSH_DEFAULT_MS 5
#define HISTORY_DEFAULT 4096

struct psg *psg_open(const struct psg_options *options, struct error *err) {
  struct psg *psg = BASE_NEW(struct psg);
  psg->magic = PSG_MAGIC;
  psg->options = *options;
  psg->options.flush_ms = options->flush_ms ? options->flush_ms : FLUSH_DEFAULT_MS;
  psg->options.execution_history = options->execution_history ? options->execution_history : HISTORY_DEFAULT;
  psg->options.loop = NULL; /* no timers while it is not whole */
  psg_uuid_make(psg, psg->run_id);
  if (!psg_genesis(psg, err))
    goto fail;
  psg_runs_index(psg);
  psg_executions_index(psg);
  psg_modules_index(psg);
  psg_executions_abandon(psg, PSG_EXECUTION_FAILED, "core.restarted");
  psg_modules_abandon(psg, "failed", "core.restarted");
  if (!psg_run_begin(psg, err))
    goto fail;
  psg->options.loop = options->loop;
  psg_checkpoint_idle(psg);
  return psg;
fail:
  psg_modules_free(psg);
  psg_graph_clear(&psg->graph);
  psg_journal_free(psg);
  base_free(psg);
  return NULL;
}

void psg_close(struct psg **psg_pointer) {
  struct psg *psg = BASE_TAKE(*psg_pointer);
  struct error err = {0};
  if (!psg)
    return;
  BASE_CHECK_MAGIC(psg, PSG_MAGIC);
  psg_executions_abandon(psg, PSG_EXECUTION_CANCELLED, "core.stopped");
  psg_modules_abandon(psg, "completed", "core.stopped");
  psg_run_end(psg);
  if (!psg_commit_now(psg, true, &err))
    log_error_value(LOG_ERROR, "psg", "the end of the run could not be recorded", &err);
  psg_modules_free(psg);
  psg_graph_clear(&psg->graph);
  psg_journal_free(psg);
  psg->magic = 0;
  base_free(psg);
}

const char *psg_graph_id(const struct psg *psg) {
  BASE_CHECK_MAGIC(psg, PSG_MAGIC);
  return psg->graph_id;
}

uint64_t psg_node_count(const struct psg *psg) {
  BASE_CHECK_MAGIC(psg, PSG_MAGIC);
  return HASH_COUNT(psg->graph.nodes);
}

uint64_t psg_edge_count(const struct psg *psg) {
  BASE_CHECK_MAGIC(psg, PSG_MAGIC);
  return HASH_COUNT(psg->graph.edges);
}

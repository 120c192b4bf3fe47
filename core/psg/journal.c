/* journal.c: from changes to the log.
 *
 * Events are formatted once, behind one another, into the bytes of the waiting batch. A flush adds the
 * GraphUpdateEvents of what changed meanwhile and hands all of it to the store as one batch. One batch is under way at
 * a time: the next one collects what happens until then, so its size follows the load, and the log is in the order of
 * the changes.
 *
 * When the store refuses a batch (a full disk) the same bytes are tried again until it takes them: the graph in memory
 * is ahead of the log then, never beside it. A batch that turns out to be in the log already (its event ids are there)
 * is done. Meanwhile changes go on as net effects, which need no more room than the graph; single events are kept up to
 * a bound and then lost, counted and said so. */
#include <stdio.h>
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define RETRY_MS 200

/* ---- times ---- */

void psg_time_text(struct psg *psg, int64_t wall_us, char text[static PSG_TIME_LENGTH + 1]) {
  int64_t second = wall_us / 1000000;
  if (second != psg->time_second || !psg->time_text[0]) {
    clock_format_rfc3339(wall_us, psg->time_text);
    psg->time_second = second;
  }
  memcpy(text, psg->time_text, PSG_TIME_LENGTH + 1);
  uint32_t micros = (uint32_t)(wall_us % 1000000);
  for (int i = 25; i >= 20; i--, micros /= 10)
    text[i] = (char)('0' + micros % 10);
}

int64_t psg_time_next(struct psg *psg, char text[static PSG_TIME_LENGTH + 1]) {
  int64_t wall_us = store_event_time_next(psg->options.store);
  psg_time_text(psg, wall_us, text);
  return wall_us;
}

/* ---- events ---- */

void psg_field(struct buf *json, const char *key, const char *text) {
  psg_literal(json, ",\"");
  buf_append_text(json, key);
  psg_literal(json, "\":");
  buf_append_json_string(json, text ? text : "", text ? strnlen(text, PSG_TEXT_MAX_BYTES) : 0);
}

struct buf *psg_event_open(struct psg *psg, const char *family, const char *type, const char *trace_id,
                           char at[static PSG_TIME_LENGTH + 1]) {
  struct psg_pending *pending = &psg->waiting;
  int64_t wall_us = psg_time_next(psg, at);
  if (pending->bytes.length > PSG_PENDING_MAX_BYTES && !str_equal(family, PSG_FAMILY_UPDATE)) {
    if (psg->events_lost++ == 0)
      log_event(LOG_ERROR, "psg", "events are lost: the store does not take them");
    return NULL;
  }
  if (pending->entry_count == pending->entry_capacity) {
    pending->entry_capacity = pending->entry_capacity ? pending->entry_capacity * 2 : 64;
    pending->entries = base_realloc_array(pending->entries, pending->entry_capacity, sizeof(*pending->entries));
  }
  struct psg_entry *entry = &pending->entries[pending->entry_count++];
  struct buf *json = &pending->bytes;
  entry->offset = json->length;
  entry->family = family;
  entry->type = type;
  entry->wall_us = wall_us;
  id_pool_uuid_v4(&psg->ids, entry->event_id);
  if (str_is_empty(trace_id) || !str_copy(entry->trace_id, sizeof(entry->trace_id), trace_id) ||
      !str_is_visible_ascii(trace_id))
    memcpy(entry->trace_id, psg->run_id, ID_UUID_BYTES);
  psg_literal(json, "{\"event_id\":\"");
  buf_append(json, entry->event_id, ID_UUID_BYTES - 1);
  psg_literal(json, "\",\"event_type\":\"");
  buf_append_text(json, type);
  psg_literal(json, "\",\"event_family\":\"");
  buf_append_text(json, family);
  psg_literal(json, "\",\"timestamp\":\"");
  buf_append(json, at, PSG_TIME_LENGTH);
  psg_literal(json, "\",\"trace_id\":");
  buf_append_json_string(json, entry->trace_id, strlen(entry->trace_id));
  psg_literal(json, ",\"context_id\":\"");
  buf_append(json, psg->context_id, ID_UUID_BYTES - 1);
  psg_literal(json, "\"");
  return json;
}

void psg_event_close(struct psg *psg) {
  struct psg_entry *entry = &psg->waiting.entries[psg->waiting.entry_count - 1];
  buf_append_char(&psg->waiting.bytes, '}');
  entry->length = psg->waiting.bytes.length - entry->offset;
}

void psg_stage_emit(struct psg *psg, const struct psg_stage_event *event) {
  char at[PSG_TIME_LENGTH + 1];
  struct buf *json = psg_event_open(psg, "pipeline_stage", event->type, event->trace_id, at);
  if (!json)
    return;
  psg_field(json, "pipeline_id", event->pipeline_id);
  psg_field(json, "stage_id", event->stage_id);
  psg_field(json, "stage_name", event->stage_name);
  psg_field(json, "stage_status", event->status);
  buf_printf(json, ",\"stage_order\":%u,\"payload\":{\"resource_type\":\"%s\"", event->order, event->resource_type);
  psg_field(json, "resource_id", event->resource_id);
  psg_field(json, "from_status", event->from);
  psg_field(json, "to_status", event->to);
  psg_field(json, "reason", event->reason);
  buf_append_char(json, '}');
  psg_event_close(psg);
}

void psg_source_set(struct psg *psg, const char *source) {
  if (str_is_empty(source))
    source = PSG_SOURCE_CORE;
  if (!psg->source[0])
    str_copy(psg->source, sizeof(psg->source), source);
  else if (!str_equal(psg->source, source))
    str_copy(psg->source, sizeof(psg->source), PSG_SOURCE_CORE);
}

void psg_waiter_add(struct psg *psg, psg_write_done *done, void *arg, uint64_t revision) {
  struct psg_pending *pending = &psg->waiting;
  if (!done)
    return;
  if (pending->waiter_count == pending->waiter_capacity) {
    pending->waiter_capacity = pending->waiter_capacity ? pending->waiter_capacity * 2 : 8;
    pending->waiters = base_realloc_array(pending->waiters, pending->waiter_capacity, sizeof(*pending->waiters));
  }
  pending->waiters[pending->waiter_count++] = (struct psg_waiter){.done = done, .arg = arg, .revision = revision};
}

/* ---- batches ---- */

static void pending_clear(struct psg_pending *pending) {
  buf_clear(&pending->bytes);
  buf_clear(&pending->checkpoint);
  buf_clear(&pending->sync);
  pending->entry_count = pending->waiter_count = 0;
  pending->operations = 0;
  pending->has_update = false;
}

static void pending_free(struct psg_pending *pending) {
  buf_free(&pending->bytes);
  buf_free(&pending->checkpoint);
  buf_free(&pending->sync);
  base_free(pending->entries);
  base_free(pending->waiters);
}

static bool something_waits(const struct psg *psg) {
  return psg->waiting.entry_count || psg->waiting.waiter_count || psg_graph_is_changed(&psg->graph);
}

static struct store_batch *batch_build(struct psg *psg, const struct psg_pending *pending) {
  struct store_batch *batch = store_batch_create();
  for (size_t i = 0; i < pending->entry_count; i++) {
    const struct psg_entry *entry = &pending->entries[i];
    store_batch_append_event(batch, &(struct store_event){
                                        .event_id = entry->event_id,
                                        .trace_id = entry->trace_id,
                                        .context_id = psg->context_id,
                                        .family = entry->family,
                                        .type = entry->type,
                                        .wall_us = entry->wall_us,
                                        .bytes = pending->bytes.data + entry->offset,
                                        .length = entry->length,
                                    });
  }
  uint64_t seq = store_last_seq(psg->options.store);
  if (pending->sync.length)
    store_checkpoint_put(batch, "psg.sync_metadata", seq, pending->sync.data, pending->sync.length);
  if (pending->checkpoint.length)
    store_checkpoint_put(batch, "psg.graph", seq, pending->checkpoint.data, pending->checkpoint.length);
  return batch;
}

/* The batch has a copy: a second one of the graph is not kept for the case that the store refuses it. */
static struct store_batch *flight_batch(struct psg *psg) {
  struct store_batch *batch = batch_build(psg, &psg->flight);
  if (!psg->failing) /* a batch that is tried again may be in the log */
    store_batch_ids_fresh(batch);
  buf_free(&psg->flight.checkpoint);
  return batch;
}

/* Operations after which a checkpoint is worth its bytes: about as many as it has nodes. */
static uint64_t operations_enough(const struct psg *psg) {
  uint64_t nodes = HASH_COUNT(psg->graph.nodes);
  return nodes > PSG_CHECKPOINT_OPERATIONS ? nodes : PSG_CHECKPOINT_OPERATIONS;
}

/* Makes the waiting batch complete and puts it in flight. */
static void take_off(struct psg *psg, bool checkpoint) {
  psg_update_emit(psg);
  psg->source[0] = 0;
  struct psg_pending taken = psg->flight;
  psg->flight = psg->waiting;
  psg->waiting = taken;
  if (psg->flight.has_update)
    buf_printf(&psg->flight.sync,
               "{\"graph_id\":\"%s\",\"last_update_id\":\"%s\",\"last_update_at\":\"%s\",\"node_count\":%llu,"
               "\"edge_count\":%llu}",
               psg->graph_id, psg->last_update_id, psg->last_update_at, (unsigned long long)psg->graph.logged_nodes,
               (unsigned long long)psg->graph.logged_edges);
  if (checkpoint) {
    psg_checkpoint_write(psg, psg->flight.has_update ? psg->last_update_id : "", &psg->flight.checkpoint);
    psg->flight.operations = psg->operations;
    psg->operations = 0;
    if (psg->flight.checkpoint.length > STORE_VALUE_MAX_BYTES) {
      log_event(LOG_WARN, "psg", "the graph is too large for a checkpoint",
                LOG_INT("bytes", psg->flight.checkpoint.length));
      buf_free(&psg->flight.checkpoint);
    }
  }
  psg->in_flight = true;
}

static void landed(struct psg *psg, const struct error *err) {
  psg->failing = false;
  if (psg->events_lost) {
    log_event(LOG_ERROR, "psg", "events were lost while the store failed", LOG_INT("events", psg->events_lost));
    psg->events_lost = 0;
  }
  psg->in_flight = false;
  struct psg_pending flight = psg->flight; /* a waiter may write again */
  char event_id[ID_UUID_BYTES];
  memcpy(event_id, psg->last_update_id, sizeof(event_id));
  psg->flight = (struct psg_pending){0};
  for (size_t i = 0; i < flight.waiter_count; i++)
    flight.waiters[i].done(flight.waiters[i].arg, flight.waiters[i].revision, err ? "" : event_id, err);
  pending_clear(&flight);
  psg->flight = flight;
}

static void flush_by_timer(void *arg) {
  struct psg *psg = arg;
  psg->timer = NULL;
  psg_flush(psg);
}

void psg_touch(struct psg *psg) {
  if (psg->options.loop && !psg->timer && (!psg->in_flight || psg->failing))
    psg->timer =
        core_rpc_timer_start(psg->options.loop, psg->failing ? RETRY_MS : psg->options.flush_ms, flush_by_timer, psg);
}

static void commit_done(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct psg *psg = arg;
  (void)result;
  if (err && !error_is(err, ERR_STORE_DUPLICATE)) {
    if (!psg->failing)
      log_error_value(LOG_ERROR, "psg", "the log refuses a batch; it is tried again", err);
    psg->failing = true;
    psg->operations += psg->flight.operations; /* the checkpoint is not tried again: the next one comes the sooner */
    psg->flight.operations = 0;
    psg_touch(psg);
    return;
  }
  landed(psg, NULL);
  if (something_waits(psg))
    psg_touch(psg);
  else
    psg_checkpoint_idle(psg);
}

static void commit_flight(struct psg *psg) {
  struct store_batch *batch = flight_batch(psg);
  psg->failing = false;
  store_commit(psg->options.store, &batch, commit_done, psg);
}

void psg_flush(struct psg *psg) {
  if (!psg_wait(psg, NULL))
    return;
  if (psg->in_flight) {
    if (psg->failing)
      commit_flight(psg);
    return;
  }
  if (!something_waits(psg))
    return;
  take_off(psg, psg->operations >= operations_enough(psg));
  commit_flight(psg);
}

static void idle_by_timer(void *arg) {
  struct psg *psg = arg;
  psg->idle_timer = NULL;
  if (psg->in_flight || something_waits(psg)) /* its landing asks again */
    return;
  if (psg->idle_version != psg->graph.version) {
    psg_checkpoint_idle(psg);
    return;
  }
  take_off(psg, true);
  commit_flight(psg);
}

void psg_checkpoint_idle(struct psg *psg) {
  if (!psg->options.loop || psg->idle_timer || psg->operations < operations_enough(psg) / PSG_CHECKPOINT_IDLE_SHARE)
    return;
  psg->idle_version = psg->graph.version;
  psg->idle_timer = core_rpc_timer_start(psg->options.loop, PSG_CHECKPOINT_IDLE_MS, idle_by_timer, psg);
}

static bool commit_flight_now(struct psg *psg, struct error *err) {
  struct error failed = {0};
  struct store_batch *batch = flight_batch(psg);
  bool good = store_commit_sync(psg->options.store, &batch, NULL, &failed) || error_is(&failed, ERR_STORE_DUPLICATE);
  landed(psg, good ? NULL : &failed);
  if (!good && err)
    *err = failed;
  return good;
}

bool psg_commit_now(struct psg *psg, bool checkpoint, struct error *err) {
  if (psg->in_flight && !psg->failing) { /* an empty batch behind it: its answer comes first */
    struct store_batch *batch = store_batch_create();
    store_commit_sync(psg->options.store, &batch, NULL, NULL);
  }
  if (psg->in_flight && !commit_flight_now(psg, err))
    return false;
  if (!something_waits(psg) && !checkpoint)
    return true;
  take_off(psg, checkpoint);
  return commit_flight_now(psg, err);
}

void psg_journal_free(struct psg *psg) {
  core_rpc_timer_cancel(&psg->timer);
  core_rpc_timer_cancel(&psg->idle_timer);
  pending_free(&psg->waiting);
  pending_free(&psg->flight);
  buf_free(&psg->scratch);
}

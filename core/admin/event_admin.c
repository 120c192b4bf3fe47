/* event_admin.c: EventAdminService: the event log as a stream, with the new events as they happen. The log is read in
 * slices of what the client takes: nothing is gathered in memory, and a client that stops reading costs one slice. */
#include <string.h>

#include "core/admin/admin_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"
#include "wire/pbc/core/spi/psg/v1/psg.pb-c.h"

#define SLICE_EVENTS 256
#define FAMILIES_MAX 16

struct event_stream {
  struct admin *admin;
  struct core_rpc_call *call;
  struct store_feed *feed; /* follow: wakes the stream; NULL otherwise */
  uint64_t next_after;     /* sequence of the last event that was sent or passed over */
  uint64_t left;           /* UINT64_MAX: no limit */
  char *trace_id, *context_id;
  char *families[FAMILIES_MAX];
  size_t family_count;
  bool follow, blocked, finished, pumping;
};

static bool family_matches(const struct event_stream *stream, const char *family) {
  for (size_t i = 0; i < stream->family_count; i++)
    if (str_equal(stream->families[i], family))
      return true;
  return stream->family_count == 0;
}

struct slice {
  struct event_stream *stream;
  size_t seen;
};

static bool event_visit(void *arg, const struct store_event *event) {
  struct slice *slice = arg;
  struct event_stream *stream = slice->stream;
  slice->seen++;
  if (family_matches(stream, event->family)) {
    Core__Spi__Psg__V1__EventRecord record = CORE__SPI__PSG__V1__EVENT_RECORD__INIT;
    record.sequence = event->seq;
    record.event_json.data = (uint8_t *)(uintptr_t)event->bytes;
    record.event_json.len = event->length;
    record.trace_id = admin_text(event->trace_id);
    record.context_id = admin_text(event->context_id);
    if (!core_rpc_call_send_message(stream->call, &record.base)) {
      stream->blocked = true; /* on_writable goes on from here */
      return false;
    }
    if (stream->left != UINT64_MAX)
      stream->left--;
  }
  stream->next_after = event->seq;
  return stream->left > 0;
}

static void finish(struct event_stream *stream, const struct error *err) {
  stream->finished = true;
  store_feed_unsubscribe(&stream->feed);
  if (err)
    core_rpc_call_fail(stream->call, err);
  else
    core_rpc_call_finish(stream->call);
}

/* Sends until the client is congested, the end is reached or the limit. */
static void pump(struct event_stream *stream) {
  if (stream->finished || stream->pumping)
    return;
  stream->pumping = true;
  stream->blocked = false;
  struct error err = {0};
  while (!stream->blocked && stream->left > 0) {
    struct slice slice = {.stream = stream};
    struct store_event_query query = {.after_seq = stream->next_after,
                                      .limit = SLICE_EVENTS,
                                      .trace_id = stream->trace_id,
                                      .context_id = stream->context_id};
    if (!store_events_read(stream->admin->options.store, &query, event_visit, &slice, &err)) {
      finish(stream, &err);
      return;
    }
    if (slice.seen < SLICE_EVENTS)
      break;
  }
  stream->pumping = false;
  if (!stream->blocked && (stream->left == 0 || !stream->follow))
    finish(stream, NULL);
}

static void feed_visit(void *arg, const struct store_feed_item *item) {
  struct event_stream *stream = arg;
  struct error err = {0};
  if (item->kind == STORE_FEED_EVENT && item->event->seq > stream->next_after) { /* not sent with the one before it */
    pump(stream);
  } else if (item->kind == STORE_FEED_GONE && !stream->finished) { /* better an end than a silence */
    error_set(&err, ERR_UNAVAILABLE, "the event log cannot be followed on");
    finish(stream, item->err ? item->err : &err);
  }
}

static void stream_writable(struct core_rpc_call *call, void *user) {
  (void)call;
  pump(user);
}

static void stream_cancelled(struct core_rpc_call *call, void *user) {
  struct event_stream *stream = user;
  (void)call;
  if (!stream->finished)
    finish(stream, NULL);
}

/* The core leaves: whoever follows goes on with the next one. What is read to its end may be. */
static void stream_drained(struct core_rpc_call *call, void *user) {
  struct event_stream *stream = user;
  struct error err = {0};
  (void)call;
  if (stream->finished || !stream->follow)
    return;
  error_set(&err, ERR_UNAVAILABLE, NULL);
  finish(stream, &err);
}

static void stream_freed(void *user) {
  struct event_stream *stream = user;
  base_free(stream->trace_id);
  base_free(stream->context_id);
  for (size_t i = 0; i < stream->family_count; i++)
    base_free(stream->families[i]);
  base_free(stream);
}

void admin_read_events(const struct admin_call *call) {
  static const struct core_rpc_call_events events = {.on_cancel = stream_cancelled,
                                                     .on_writable = stream_writable,
                                                     .on_drain = stream_drained,
                                                     .on_free = stream_freed};
  const Core__Spi__Psg__V1__ReadEventsRequest *request = (const void *)call->request;
  struct store *store = call->admin->options.store;
  struct error err = {0};
  if (request->n_families > FAMILIES_MAX) {
    core_rpc_call_fail_code(call->call, ERR_OUT_OF_RANGE);
    return;
  }
  struct event_stream *stream = BASE_NEW(struct event_stream);
  stream->admin = call->admin;
  stream->call = call->call;
  stream->follow = request->follow;
  stream->left = request->limit && !request->tail ? request->limit : UINT64_MAX;
  stream->next_after = request->after_sequence;
  if (request->tail) {
    uint64_t last = store_last_seq(store), wanted = request->limit ? request->limit : 20;
    stream->next_after = last > wanted ? last - wanted : 0;
  }
  stream->trace_id = str_is_empty(request->trace_id) ? NULL : base_strdup(request->trace_id);
  stream->context_id = str_is_empty(request->context_id) ? NULL : base_strdup(request->context_id);
  for (size_t i = 0; i < request->n_families; i++)
    stream->families[stream->family_count++] = base_strdup(request->families[i]);
  core_rpc_call_events_set(call->call, &events, stream);
  psg_flush(call->admin->options.psg);
  if (stream->follow) {
    struct store_feed_options options = {.kind = STORE_FEED_EVENTS, .after = STORE_FEED_NOW};
    stream->feed = store_feed_subscribe(store, &options, feed_visit, stream, &err);
    if (!stream->feed) {
      finish(stream, &err);
      return;
    }
  }
  pump(stream);
}

void admin_query_nodes(const struct admin_call *call) {
  struct error err = {0};
  Core__Spi__Psg__V1__QueryResponse *response = psg_query(call->admin->options.psg, (const void *)call->request, &err);
  if (!response) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  core_rpc_call_reply_message(call->call, &response->base);
  core__spi__psg__v1__query_response__free_unpacked(response, NULL);
}

void admin_get_state_hash(const struct admin_call *call) {
  Core__Spi__Psg__V1__GetStateHashResponse response = CORE__SPI__PSG__V1__GET_STATE_HASH_RESPONSE__INIT;
  struct error err = {0};
  char hash[65];
  if (!psg_state_hash(call->admin->options.psg, hash, &err)) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  response.state_hash = hash;
  response.node_count = psg_node_count(call->admin->options.psg);
  response.edge_count = psg_edge_count(call->admin->options.psg);
  response.graph_id = admin_text(psg_graph_id(call->admin->options.psg));
  core_rpc_call_reply_message(call->call, &response.base);
}

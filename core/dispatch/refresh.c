/* refresh.c: keeps the records of federated gateways up to date: asks the module of the gateway's protocol what the
 * upstream offers (ModuleRuntime.Discover) and applies it to the catalog. By interval, when a gateway document changes,
 * when the module becomes ready, and on demand. A failed look changes nothing and is tried again with back-off. */
#include <string.h>

#include "core/dispatch/dispatch_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/module/v1/module.pb-c.h"

#define DISCOVER_METHOD "/core.module.v1.ModuleRuntime/Discover"
#define DISCOVER_TIMEOUT_MS 20000
#define DISCOVERED_MAX 5000
#define GATEWAY_FAMILY "mcp" /* of every gateway, so far */
#define TICK_MS 1000
#define INTERVAL_DEFAULT_SECONDS 300
#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS 60000

/* What is known of one gateway. */
struct gateway_state {
  char id[64];
  int64_t due_us;    /* when to look again */
  uint32_t retry_ms; /* back-off after failures; 0: the last look succeeded */
  unsigned looks;    /* under way */
  bool changed;      /* since the look that is under way began: another one follows */
  bool seen;         /* still in the catalog */
  UT_hash_handle hh;
};

/* A request of dispatch_refresh_gateways: over several looks. */
struct waiter {
  dispatch_refresh_done *done;
  void *arg;
  uint32_t created, updated, deleted;
  unsigned pending;
  struct error err;
};

LIST_HEAD(look_list, look);

struct dispatch_refresh {
  struct dispatch *dispatch;
  struct look_list looks;
  struct gateway_state *gateways;
  struct core_rpc_timer *timer;
  struct catalog_watch *watch;
};

/* One look at one gateway. */
struct look {
  LIST_ENTRY(look) entry;
  struct dispatch_refresh *refresh; /* NULL: freed before; the catalog may end a write after that */
  char gateway_id[64];
  struct waiter *waiter; /* NULL: nobody waits */
  bool broken;           /* what the module says cannot be used: nothing of it is */
  size_t count;
  Core__Module__V1__DiscoverItem **items; /* their records are handed to the catalog */
};

static void waiter_settle(struct waiter *waiter) {
  if (!waiter || --waiter->pending > 0)
    return;
  if (waiter->done)
    waiter->done(waiter->arg, waiter->created, waiter->updated, waiter->deleted,
                 error_is_set(&waiter->err) ? &waiter->err : NULL);
  base_free(waiter);
}

static struct gateway_state *state_ensure(struct dispatch_refresh *refresh, const char *id) {
  struct gateway_state *state = NULL;
  HASH_FIND_STR(refresh->gateways, id, state);
  if (!state) {
    state = BASE_NEW(struct gateway_state);
    str_copy(state->id, sizeof(state->id), id);
    HASH_ADD_STR(refresh->gateways, id, state);
  }
  return state;
}

static uint32_t interval_seconds(const struct catalog_record *gateway) {
  return gateway->gateway->refresh_interval_seconds ? gateway->gateway->refresh_interval_seconds
                                                    : INTERVAL_DEFAULT_SECONDS;
}

/* When to look again. */
static void state_schedule(struct dispatch_refresh *refresh, const char *gateway_id, bool failed) {
  struct gateway_state *state = NULL;
  HASH_FIND_STR(refresh->gateways, gateway_id, state);
  if (!state)
    return;
  const struct catalog_record *gateway = catalog_record_by_id(refresh->dispatch->options.catalog, gateway_id);
  state->looks--;
  if (!failed)
    state->retry_ms = 0;
  else if (state->retry_ms == 0)
    state->retry_ms = RETRY_FIRST_MS;
  else
    state->retry_ms = state->retry_ms < RETRY_MAX_MS / 2 ? state->retry_ms * 2 : RETRY_MAX_MS;
  int64_t delay_ms = failed ? state->retry_ms : gateway ? (int64_t)interval_seconds(gateway) * 1000 : 0;
  state->due_us = state->changed ? 0 : clock_monotonic_us() + delay_ms * 1000;
  state->changed = false;
}

static void look_settle(struct look *look, const struct error *err) {
  if (look->refresh) {
    LIST_REMOVE(look, entry);
    state_schedule(look->refresh, look->gateway_id, err != NULL);
  }
  if (err) {
    log_event(LOG_WARN, "dispatch", "a gateway could not be looked at", LOG_TEXT("gateway", look->gateway_id),
              LOG_TEXT("code", err->code), LOG_TEXT("message", err->message));
    if (look->waiter)
      look->waiter->err = *err;
  }
  for (size_t i = 0; i < look->count; i++)
    core__module__v1__discover_item__free_unpacked(look->items[i], NULL);
  base_free(look->items);
  waiter_settle(look->waiter);
  base_free(look);
}

static void look_applied(void *arg, uint32_t created, uint32_t updated, uint32_t deleted, const struct error *err) {
  struct look *look = arg;
  if (!err && (created || updated || deleted))
    log_event(LOG_INFO, "dispatch", "a gateway's records changed", LOG_TEXT("gateway", look->gateway_id),
              LOG_INT("created", created), LOG_INT("updated", updated), LOG_INT("deleted", deleted));
  if (look->waiter) {
    look->waiter->created += created;
    look->waiter->updated += updated;
    look->waiter->deleted += deleted;
  }
  look_settle(look, err);
}

static void look_message(struct core_rpc_client_call *call, const uint8_t *data, size_t length, void *user) {
  struct look *look = user;
  Core__Module__V1__DiscoverItem *item = core__module__v1__discover_item__unpack(NULL, length, data);
  if (!item || (item->item_case == CORE__MODULE__V1__DISCOVER_ITEM__ITEM_RECORD && look->count >= DISCOVERED_MAX)) {
    look->broken = true;
    core_rpc_client_cancel(call);
  } else if (item->item_case == CORE__MODULE__V1__DISCOVER_ITEM__ITEM_RECORD) {
    if ((look->count & (look->count + 1)) == 0) /* grows by doubling */
      look->items = base_realloc_array(look->items, 2 * (look->count + 1), sizeof(*look->items));
    look->items[look->count++] = BASE_TAKE(item);
  }
  if (item)
    core__module__v1__discover_item__free_unpacked(item, NULL);
}

static void look_done(struct core_rpc_client_call *call, const struct core_rpc_result *result, void *user) {
  struct look *look = user;
  struct error err = result->err;
  (void)call;
  if (look->broken) {
    error_set(&err, ERR_MODULE_ANSWER, NULL);
    err.origin = ERROR_ORIGIN_MODULE;
  }
  if (look->broken || result->grpc_status != 0) {
    look_settle(look, &err);
    return;
  }
  struct catalog_discovered *items = base_calloc(look->count + 1, sizeof(*items));
  for (size_t i = 0; i < look->count; i++) {
    const Core__Module__V1__DiscoveredRecord *record = look->items[i]->record;
    items[i] = (struct catalog_discovered){.kind = (enum catalog_kind)record->kind,
                                           .original_name = record->original_name,
                                           .definition_json = (const char *)record->definition_json.data,
                                           .definition_length = record->definition_json.len};
  }
  catalog_discovered_apply(look->refresh->dispatch->options.catalog, look->gateway_id, items, look->count, look_applied,
                           look);
  base_free(items);
}

static void look_begin(struct dispatch_refresh *refresh, const struct catalog_record *gateway, struct waiter *waiter) {
  static const struct core_rpc_client_events events = {.on_message = look_message, .on_done = look_done};
  struct dispatch *dispatch = refresh->dispatch;
  struct gateway_state *state = state_ensure(refresh, gateway->id);
  struct dispatch_plan_parts parts = {0};
  struct error err = {0};
  char plan_id[ID_UUID_BYTES];
  struct look *look = BASE_NEW(struct look);
  look->refresh = refresh;
  look->waiter = waiter;
  str_copy(look->gateway_id, sizeof(look->gateway_id), gateway->id);
  LIST_INSERT_HEAD(&refresh->looks, look, entry);
  state->looks++;
  id_uuid_v4(plan_id);
  struct core_rpc_channel *channel =
      lifecycle_family_channel(dispatch->options.lifecycle, GATEWAY_FAMILY, NULL, NULL, &err);
  if (!channel || !dispatch_plan_fill(dispatch, gateway, plan_id, "{}", 2, DISCOVER_TIMEOUT_MS, NULL, &parts, &err)) {
    look_settle(look, &err);
    return;
  }
  Core__Module__V1__DiscoverRequest message = CORE__MODULE__V1__DISCOVER_REQUEST__INIT;
  message.plan = &parts.plan;
  size_t length = core__module__v1__discover_request__get_packed_size(&message);
  uint8_t *bytes = base_alloc(length);
  core__module__v1__discover_request__pack(&message, bytes);
  struct core_rpc_request request = {.method = DISCOVER_METHOD,
                                     .kind = CORE_RPC_SERVER_STREAM,
                                     .data = bytes,
                                     .length = length,
                                     .timeout_ms = DISCOVER_TIMEOUT_MS,
                                     .events = &events,
                                     .user = look};
  core_rpc_client_start(channel, &request);
  secret_wipe(bytes, length);
  base_free(bytes);
  dispatch_plan_release(&parts);
}

/* ---- when ---- */

static void gateway_tick(void *arg, const struct catalog_record *record, const char *shown_name) {
  struct dispatch_refresh *refresh = arg;
  struct gateway_state *state = state_ensure(refresh, record->id);
  (void)shown_name;
  state->seen = true;
  if (!state->looks && state->due_us <= clock_monotonic_us())
    look_begin(refresh, record, NULL);
}

static void tick(void *argument) {
  struct dispatch_refresh *refresh = argument;
  struct gateway_state *state, *next;
  refresh->timer = core_rpc_timer_start(refresh->dispatch->options.loop, TICK_MS, tick, refresh);
  if (!lifecycle_family_channel(refresh->dispatch->options.lifecycle, GATEWAY_FAMILY, NULL, NULL, NULL))
    return; /* nothing can look now; what is due stays due */
  HASH_ITER(hh, refresh->gateways, state, next)
  state->seen = false;
  catalog_gateways(refresh->dispatch->options.catalog, gateway_tick, refresh);
  HASH_ITER(hh, refresh->gateways, state, next) {
    if (!state->seen && !state->looks) {
      HASH_DELETE(hh, refresh->gateways, state);
      base_free(state);
    }
  }
}

void dispatch_refresh_soon(struct dispatch_refresh *refresh) {
  core_rpc_timer_cancel(&refresh->timer);
  refresh->timer = core_rpc_timer_start(refresh->dispatch->options.loop, 1, tick, refresh);
}

/* A changed gateway document is looked at soon. */
static void on_change(void *arg, uint64_t revision, enum catalog_kind kind, const char *record_id, bool deleted) {
  struct dispatch_refresh *refresh = arg;
  (void)revision;
  if (kind != CATALOG_KIND_GATEWAY || !record_id || deleted)
    return;
  struct gateway_state *state = state_ensure(refresh, record_id);
  state->due_us = 0;
  state->changed = state->looks > 0;
  dispatch_refresh_soon(refresh);
}

struct dispatch_refresh *dispatch_refresh_create(struct dispatch *dispatch) {
  struct dispatch_refresh *refresh = BASE_NEW(struct dispatch_refresh);
  refresh->dispatch = dispatch;
  LIST_INIT(&refresh->looks);
  refresh->watch = catalog_watch_start(dispatch->options.catalog, on_change, refresh);
  refresh->timer = core_rpc_timer_start(dispatch->options.loop, 1, tick, refresh);
  return refresh;
}

void dispatch_refresh_free(struct dispatch_refresh **holder) {
  struct dispatch_refresh *refresh = BASE_TAKE(*holder);
  struct gateway_state *state, *next;
  core_rpc_timer_cancel(&refresh->timer);
  catalog_watch_stop(&refresh->watch);
  struct look *look;
  LIST_FOREACH(look, &refresh->looks, entry)
  look->refresh = NULL; /* each ends with its write */
  HASH_ITER(hh, refresh->gateways, state, next) {
    HASH_DELETE(hh, refresh->gateways, state);
    base_free(state);
  }
  base_free(refresh);
}

struct demand {
  struct dispatch_refresh *refresh;
  const char *name;
  struct waiter *waiter;
};

static void gateway_demand(void *arg, const struct catalog_record *record, const char *shown_name) {
  struct demand *demand = arg;
  (void)shown_name;
  if (demand->name && !str_equal(demand->name, record->name))
    return;
  demand->waiter->pending++;
  look_begin(demand->refresh, record, demand->waiter);
}

void dispatch_refresh_gateways(struct dispatch *dispatch, const char *gateway_name, dispatch_refresh_done *done,
                               void *arg) {
  struct waiter *waiter = BASE_NEW(struct waiter);
  struct demand demand = {dispatch->refresh, gateway_name, waiter};
  waiter->done = done;
  waiter->arg = arg;
  waiter->pending = 1; /* ours, until every look has begun */
  catalog_gateways(dispatch->options.catalog, gateway_demand, &demand);
  if (gateway_name && waiter->pending == 1)
    error_set(&waiter->err, ERR_CATALOG_NOT_FOUND, NULL);
  waiter_settle(waiter);
}

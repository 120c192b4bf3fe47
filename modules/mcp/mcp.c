/* mcp.c: the module as the core sees it: its life, its configuration, the changes that it follows. */
#include <event2/event.h>

#include "modules/mcp/mcp.h"
#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

static void on_sweep(evutil_socket_t fd, short what, void *arg) {
  struct mcp *mcp = arg;
  (void)fd, (void)what;
  mcp_exchanges_sweep(mcp);
  mcp_callers_sweep(mcp);
  mcp_sessions_sweep(mcp);
  mcp_streams_check(mcp);
}

static bool create(struct module *module, struct error *err) {
  const struct timeval period = {.tv_sec = MCP_SWEEP_MS / 1000};
  struct mcp *mcp = BASE_NEW(struct mcp);
  mcp->module = module;
  id_random_bytes(mcp->caller_hash_key, sizeof(mcp->caller_hash_key));
  TAILQ_INIT(&mcp->exchanges);
  TAILQ_INIT(&mcp->streams);
  TAILQ_INIT(&mcp->waiting);
  module_state_set(module, mcp);
  mcp->upstream = mcp_upstream_pool_create(module_event_base(module));
  mcp->reports = mcp_reports_create(module);
  mcp->sweep_timer = event_new(module_event_base(module), -1, EV_PERSIST, on_sweep, mcp);
  event_add(mcp->sweep_timer, &period);
  mcp->wait_timer = evtimer_new(module_event_base(module), mcp_exchanges_wait_over, mcp);
  return mcp_config_read(NULL, &mcp->config, err);
}

static bool initialize(struct module *module, const core_module_v1_InitializeRequest *request, struct error *err) {
  struct mcp *mcp = module_state(module);
  struct mcp_config config;
  if (!mcp_config_read(request->config_json, &config, err))
    return false;
  mcp_config_clear(&mcp->config);
  mcp->config = config;
  return true;
}

static void attached(struct module *module, bool is_attached) {
  struct mcp *mcp = module_state(module);
  struct error err = {0};
  /* Another core, or the same one later: nothing of what was known holds. */
  mcp->revision = 0;
  mcp_callers_drop_all(mcp);
  mcp_sessions_forget(mcp);
  if (is_attached)
    mcp_exchanges_go_on(mcp);
  if (!is_attached || mcp->http || module_is_draining(module)) /* the door is for the process that stays */
    return;
  bool listens = mcp_http_start(mcp, &err);
  if (!listens)
    log_error_value(LOG_ERROR, "mcp", "the module does not listen", &err);
  module_listening_set(module, listens, listens ? NULL : err.message);
  module_warm_set(module, true, NULL);
}

static void changed(struct module *module, const core_spi_catalog_v1_WatchEvent *event) {
  struct mcp *mcp = module_state(module);
  if (event->revision > mcp->revision)
    mcp->revision = event->revision;
  switch (event->which_event) {
  case core_spi_catalog_v1_WatchEvent_revoked_tag:
    if (event->event.revoked->references_count == 0)
      mcp_callers_drop_all(mcp);
    for (pb_size_t i = 0; i < event->event.revoked->references_count; i++)
      mcp_callers_drop_reference(mcp, event->event.revoked->references[i]);
    mcp_streams_check(mcp);
    break;
  case core_spi_catalog_v1_WatchEvent_record_tag:
    mcp_callers_forget_lists(mcp);
    break;
  default:
    mcp_callers_drop_all(mcp);
    mcp_sessions_forget(mcp);
    break;
  }
}

static uint32_t in_flight(struct module *module) {
  const struct mcp *mcp = module_state(module);
  return mcp->in_flight;
}

static void stats(struct module *module, core_module_v1_ModuleStats *out) {
  static core_module_v1_Stat numbers[8];
  const struct mcp *mcp = module_state(module);
  struct http_server_stats http = {0};
  if (mcp->http)
    http_server_stats_get(mcp->http, &http);
  const struct {
    const char *name;
    uint64_t value;
  } table[] = {
      {"callers", HASH_COUNT(mcp->callers)},
      {"sessions", HASH_COUNT(mcp->sessions)},
      {"upstreams", mcp_upstream_pool_count(mcp->upstream)},
      {"list_cache_bytes", mcp->page_bytes},
      {"http_connections_total", http.connections_accepted},
      {"http_connections_refused_total", http.connections_refused},
      {"http_requests_refused_total", http.requests_refused},
      {"http_clients_dropped_total", http.clients_dropped},
  };
  _Static_assert(sizeof(table) / sizeof(table[0]) == sizeof(numbers) / sizeof(numbers[0]), "one for each");
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
    numbers[i] = (core_module_v1_Stat){.name = (char *)(uintptr_t)table[i].name, .value = table[i].value};
  out->requests_total = mcp->requests_total;
  out->errors_total = mcp->errors_total;
  out->connections = mcp->http ? (uint32_t)http_server_connection_count(mcp->http) : 0;
  out->stats_count = sizeof(numbers) / sizeof(numbers[0]);
  out->stats = numbers;
}

static void http_drained(void *context) {
  struct mcp *mcp = context;
  module_drained(mcp->module);
}

static void on_give_up(evutil_socket_t fd, short what, void *arg) {
  struct mcp *mcp = arg;
  (void)fd, (void)what;
  mcp_exchanges_abandon(mcp);
}

/* What is still under way shortly before the deadline is answered, while there is time: its clients can ask again
 * instead of waiting for what never comes. */
static void give_up_later(struct mcp *mcp, uint32_t deadline_ms) {
  uint32_t before_ms = deadline_ms / 10 < MCP_GIVE_UP_MS ? deadline_ms / 10 : MCP_GIVE_UP_MS;
  uint32_t wait_ms = deadline_ms - before_ms;
  const struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = (suseconds_t)(wait_ms % 1000) * 1000};
  mcp->give_up_timer = evtimer_new(module_event_base(mcp->module), on_give_up, mcp);
  evtimer_add(mcp->give_up_timer, &wait);
}

static void drain(struct module *module, uint32_t deadline_ms) {
  struct mcp *mcp = module_state(module);
  mcp_streams_send_away(mcp);
  give_up_later(mcp, deadline_ms);
  if (mcp->http && module_is_handing_over(module))
    http_server_hand_over(mcp->http, deadline_ms, http_drained, mcp);
  else if (mcp->http)
    http_server_drain(mcp->http, deadline_ms, http_drained, mcp);
  else
    module_drained(module);
}

static void destroy(struct module *module) {
  struct mcp *mcp = module_state(module);
  if (!mcp)
    return;
  mcp_streams_send_away(mcp);
  mcp_exchanges_abandon(mcp);
  http_server_free(&mcp->http);
  mcp_callers_drop_all(mcp);
  mcp_sessions_forget(mcp);
  mcp_upstream_pool_free(&mcp->upstream);
  mcp_reports_free(&mcp->reports);
  event_free(mcp->sweep_timer);
  event_free(mcp->wait_timer);
  if (mcp->give_up_timer)
    event_free(mcp->give_up_timer);
  mcp_config_clear(&mcp->config);
  base_free(mcp);
}

static const struct module_capability capabilities[] = {
    {"transport.streamable-http", true},
    {"transport.sse", false},
    {"era.legacy", true},
    {"era.modern", true},
    {"tools.list", true},
    {"tools.call", true},
    {"tools.progress", true},
    {"tools.cancel", true},
    {"sessions", true},
    {"sessions.resume", false},
    {"streaming", true},
    {"upstream.mcp", true},
    {"resources", false},
    {"prompts", false},
    {"completion", false},
    {"logging", false},
    {"subscriptions", false},
    {"tasks", false},
    {"sampling", false},
    {"elicitation", false},
    {"roots", false},
};

/* The core runs the hooks inside Invoke and PrepareInvoke. */
static const struct module_hook hooks[] = {
    {"tool_pre_invoke", core_module_v1_HookParity_HOOK_PARITY_DELEGATE},
    {"tool_post_invoke", core_module_v1_HookParity_HOOK_PARITY_DELEGATE},
};

static const char *const families[] = {"auth", "catalog", "plugin", "session", "observability", "config", NULL};

const struct module_definition mcp_module_definition = {
    .module_id = "mcp",
    .protocol_family = MCP_FAMILY,
    .version = GATEHOUSE_VERSION,
    .summary = "The Model Context Protocol, legacy and modern, on one endpoint.",
    .capabilities = capabilities,
    .capability_count = sizeof(capabilities) / sizeof(capabilities[0]),
    .hooks = hooks,
    .hook_count = sizeof(hooks) / sizeof(hooks[0]),
    .spi_families = families,
    .config_schema_json = mcp_config_schema_json,
    .create = create,
    .initialize = initialize,
    .attached = attached,
    .drain = drain,
    .in_flight = in_flight,
    .stats = stats,
    .invoke = mcp_invoke,
    .discover = mcp_upstream_discover,
    .changed = changed,
    .destroy = destroy,
};

/* main.c: gatehouse-rest, the module that makes REST endpoints into tools (RST-1 to RST-3). It listens nowhere: it
 * carries out what the core approved (ModuleRuntime.Invoke), and that is all it declares. */
#include <string.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/module/module.h"

#define FILTER_FD 3

static const struct module_capability capabilities[] = {
    {"tools.invoke", true},   {"transport.http", true}, {"filters.jq", true},
    {"openapiImport", false}, {"reflection", false},    {"streaming", false},
};

/* The core runs these hooks inside Invoke. */
static const struct module_hook hooks[] = {
    {"tool_pre_invoke", core_module_v1_HookParity_HOOK_PARITY_DELEGATE},
    {"tool_post_invoke", core_module_v1_HookParity_HOOK_PARITY_DELEGATE},
};

static const char *const spi_families[] = {"auth", "catalog", "config", "observability", NULL};

static bool create(struct module *module, struct error *err) {
  (void)err;
  struct rest *rest = BASE_NEW(struct rest);
  rest->module = module;
  rest->clients = rest_clients_create(module_event_base(module));
  rest->filters = rest_filters_create(module_event_base(module), NULL);
  module_state_set(module, rest);
  return true;
}

static void attached(struct module *module, bool is_attached) {
  if (!is_attached)
    return;
  module_warm_set(module, true, NULL);
  http_client_prepare(); /* every call needs it; not before: loading it would make the way here twice as long */
}

static void drain(struct module *module, uint32_t deadline_ms) {
  const struct rest *rest = module_state(module);
  (void)deadline_ms;
  if (rest->in_flight == 0)
    module_drained(module);
}

static void stats(struct module *module, core_module_v1_ModuleStats *out) {
  static core_module_v1_Stat numbers[2];
  const struct rest *rest = module_state(module);
  numbers[0] = (core_module_v1_Stat){.name = (char *)(uintptr_t) "clients", .value = rest_clients_count(rest->clients)};
  numbers[1] = (core_module_v1_Stat){.name = (char *)(uintptr_t) "filtered_total", .value = rest->filtered_total};
  out->stats = numbers;
  out->stats_count = 2;
}

static void destroy(struct module *module) {
  struct rest *rest = module_state(module);
  rest_clients_free(&rest->clients);
  rest_filters_free(&rest->filters);
  rest_request_clear(&rest->request);
  base_free(rest);
}

static const struct module_definition definition = {
    .module_id = "rest",
    .protocol_family = "rest-grpc",
    .version = GATEHOUSE_VERSION,
    .summary = "Carries out calls of tools that are REST endpoints.",
    .capabilities = capabilities,
    .capability_count = sizeof(capabilities) / sizeof(capabilities[0]),
    .hooks = hooks,
    .hook_count = sizeof(hooks) / sizeof(hooks[0]),
    .spi_families = spi_families,
    .create = create,
    .attached = attached,
    .drain = drain,
    .stats = stats,
    .invoke = rest_invoke,
    .destroy = destroy,
};

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], REST_FILTER_WORKER_OPTION) == 0)
    return rest_filter_worker_main(FILTER_FD);
  return module_main(argc, argv, &definition);
}

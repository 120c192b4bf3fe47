/* config.c: ConfigSecretsService and PluginService, as far as they are built. */
#include "core/spi/spi_internal.h"
#include "wire/pbc/core/spi/config/v1/config.pb-c.h"
#include "wire/pbc/core/spi/plugin/v1/plugin.pb-c.h"

void spi_config_get(const struct spi_call *call) {
  Core__Spi__Config__V1__ModuleConfig response = CORE__SPI__CONFIG__V1__MODULE_CONFIG__INIT;
  response.config_json.data =
      (uint8_t *)(uintptr_t)lifecycle_instance_config(call->instance, &response.config_json.len, &response.revision);
  core_rpc_call_reply_message(call->call, &response.base);
}

static void watch_ended(struct core_rpc_call *call, void *user) {
  (void)user;
  core_rpc_call_finish(call);
}

/* A process has one configuration in its life: a change comes with another process beside it (LIF-9), whose stream
 * begins with it. So this one says what it has, and then stays silent. */
void spi_config_watch(const struct spi_call *call) {
  static const struct core_rpc_call_events events = {.on_cancel = watch_ended};
  Core__Spi__Config__V1__ModuleConfig response = CORE__SPI__CONFIG__V1__MODULE_CONFIG__INIT;
  response.config_json.data =
      (uint8_t *)(uintptr_t)lifecycle_instance_config(call->instance, &response.config_json.len, &response.revision);
  core_rpc_call_events_set(call->call, &events, NULL);
  core_rpc_call_send_message(call->call, &response.base);
}

/* No plugin engine yet, and the catalog refuses Plugin documents: no hook is active. */
void spi_plugin_describe_hooks(const struct spi_call *call) {
  Core__Spi__Plugin__V1__DescribeHooksResponse response = CORE__SPI__PLUGIN__V1__DESCRIBE_HOOKS_RESPONSE__INIT;
  Core__Common__V1__Lease lease;
  spi_lease_fill(call->spi, NULL, &lease);
  response.lease = &lease;
  core_rpc_call_reply_message(call->call, &response.base);
}

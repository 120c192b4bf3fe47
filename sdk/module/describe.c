/* describe.c: the module's descriptor (DSC-1, DSC-2), as a message for Describe and as JSON for --describe, from the
 * one definition. Texts are borrowed from the definition; the arrays belong to the descriptor. */
#include <stdio.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/module/module_internal.h"
#include "sdk/wire/wire.h"
#include "sdk/wire/wire_json.h"
#include "wire/pbc/core/module/v1/module.pb-c.h"

/* nanopb's structs hold char *, our tables const char *: the encoder only reads. */
static char *text(const char *value) {
  return (char *)(uintptr_t)value;
}

static const char *const rollback_triggers[] = {"manual", "crash_loop", "failed_readiness", "failed_probation"};
static const char *const preserved_state[] = {"sessions", "events", "state_graph"};

core_module_v1_ModuleDescriptor *module_descriptor_make(const struct module_definition *definition,
                                                        const char *module_id) {
  core_module_v1_ModuleDescriptor *d = BASE_NEW(core_module_v1_ModuleDescriptor);
  d->module_id = text(module_id);
  d->protocol_family = text(definition->protocol_family);
  d->implementation_language = text("c");
  d->module_version = text(definition->version);

  d->spi_versions_count = 1;
  d->spi_versions = base_calloc(1, sizeof(char *));
  d->spi_versions[0] = text(MODULE_SPI_VERSION);

  d->runtime_modes_count = 1;
  d->runtime_modes = base_calloc(1, sizeof(*d->runtime_modes));
  d->runtime_modes[0] = core_module_v1_RuntimeMode_RUNTIME_MODE_SIDECAR;
  d->ingress_modes_count = 1;
  d->ingress_modes = base_calloc(1, sizeof(*d->ingress_modes));
  d->ingress_modes[0] = core_module_v1_IngressMode_INGRESS_MODE_DIRECT;

  d->capabilities_count = (pb_size_t)definition->capability_count;
  d->capabilities = base_calloc(definition->capability_count + 1, sizeof(*d->capabilities));
  for (size_t i = 0; i < definition->capability_count; i++) {
    d->capabilities[i].name = text(definition->capabilities[i].name);
    d->capabilities[i].supported = definition->capabilities[i].supported;
  }

  d->health = BASE_NEW(core_module_v1_HealthSupport);
  d->health->readiness = true;
  d->health->liveness = true;
  d->stats = true;

  d->plugin_parity_count = (pb_size_t)definition->hook_count;
  d->plugin_parity = base_calloc(definition->hook_count + 1, sizeof(*d->plugin_parity));
  for (size_t i = 0; i < definition->hook_count; i++) {
    d->plugin_parity[i].hook = text(definition->hooks[i].hook);
    d->plugin_parity[i].parity = definition->hooks[i].parity;
  }

  core_module_v1_FallbackStrategy *fallback = BASE_NEW(core_module_v1_FallbackStrategy);
  fallback->supports_rollback = true;
  fallback->triggers_count = sizeof(rollback_triggers) / sizeof(rollback_triggers[0]);
  fallback->triggers = (char **)(uintptr_t)rollback_triggers;
  fallback->preserved_state_count = sizeof(preserved_state) / sizeof(preserved_state[0]);
  fallback->preserved_state = (char **)(uintptr_t)preserved_state;
  d->fallback_strategy = fallback;

  size_t family_count = 0;
  while (definition->spi_families && definition->spi_families[family_count])
    family_count++;
  d->spi_families_count = (pb_size_t)family_count;
  d->spi_families = (char **)(uintptr_t)definition->spi_families;

  d->config_schema_json = text(definition->config_schema_json);
  return d;
}

void module_descriptor_free(core_module_v1_ModuleDescriptor **descriptor) {
  core_module_v1_ModuleDescriptor *d = BASE_TAKE(*descriptor);
  if (!d)
    return;
  base_free(d->spi_versions);
  base_free(d->runtime_modes);
  base_free(d->ingress_modes);
  base_free(d->capabilities);
  base_free(d->health);
  base_free(d->plugin_parity);
  base_free(d->fallback_strategy);
  base_free(d);
}

bool module_descriptor_print(const struct module_definition *definition) {
  struct buf bytes = {0}, json = {0};
  core_module_v1_ModuleDescriptor *descriptor = module_descriptor_make(definition, definition->module_id);
  bool ok = wire_encode(core_module_v1_ModuleDescriptor_fields, descriptor, &bytes, NULL);
  module_descriptor_free(&descriptor);
  Core__Module__V1__ModuleDescriptor *message =
      ok ? core__module__v1__module_descriptor__unpack(NULL, bytes.length, (const uint8_t *)bytes.data) : NULL;
  if (message) {
    ok = wire_json_encode(&message->base, &json, NULL) && puts(json.data) >= 0 && fflush(stdout) == 0;
    core__module__v1__module_descriptor__free_unpacked(message, NULL);
  }
  buf_free(&bytes);
  buf_free(&json);
  return ok && message;
}

/* descriptor.c: from the descriptor alone the core decides whether a module may start (DSC-5): identity, SPI version
 * (SPI-17), families (SPI-1), release policy of its protocol family. */
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"

enum {
#define LIFECYCLE_FAMILY(name, text) FAMILY_INDEX_##name,
#include "core/lifecycle/families.def"
#undef LIFECYCLE_FAMILY
  FAMILY_COUNT
};
enum {
#define LIFECYCLE_FAMILY(name, text) FAMILY_##name = 1 << FAMILY_INDEX_##name,
#include "core/lifecycle/families.def"
#undef LIFECYCLE_FAMILY
};

static const char *const family_names[FAMILY_COUNT + 1] = {
#define LIFECYCLE_FAMILY(name, text) text,
#include "core/lifecycle/families.def"
#undef LIFECYCLE_FAMILY
    NULL,
};

const char *const *lifecycle_family_names(void) {
  return family_names;
}

/* What a protocol family may have, and what it cannot do without. Unknown protocol families get the middle road. */
#define FAMILY_COMMON (FAMILY_AUTH | FAMILY_CATALOG | FAMILY_CONFIG | FAMILY_OBSERVABILITY)
static const struct {
  const char *protocol_family;
  unsigned allowed, needed;
  bool plugin_parity; /* every tool hook must be full or delegate */
} release_policy[] = {
    {"mcp", FAMILY_COMMON | FAMILY_PLUGIN | FAMILY_SESSION | FAMILY_PSG, FAMILY_COMMON | FAMILY_PLUGIN | FAMILY_SESSION,
     true},
    {"a2a", FAMILY_COMMON | FAMILY_PLUGIN | FAMILY_SESSION | FAMILY_PSG, FAMILY_COMMON, false},
    {"llm", FAMILY_COMMON | FAMILY_PLUGIN | FAMILY_SESSION | FAMILY_PSG, FAMILY_COMMON, false},
    {"rest-grpc", FAMILY_COMMON | FAMILY_PLUGIN | FAMILY_SESSION, FAMILY_COMMON, false},
    {"console", FAMILY_AUTH | FAMILY_OBSERVABILITY, FAMILY_AUTH | FAMILY_OBSERVABILITY, false},
    {NULL, FAMILY_COMMON | FAMILY_PLUGIN | FAMILY_SESSION, FAMILY_AUTH, false},
};

static bool versions_check(const Core__Module__V1__ModuleDescriptor *descriptor, struct error *err) {
  struct buf list = {0};
  for (size_t i = 0; i < descriptor->n_spi_versions; i++) {
    if (str_equal(descriptor->spi_versions[i], LIFECYCLE_SPI_VERSION)) {
      buf_free(&list);
      return true;
    }
    if (list.length < 64)
      buf_printf(&list, "%s%.16s", i ? "," : "", descriptor->spi_versions[i]);
  }
  error_set(err, ERR_MODULE_SPI_VERSION, "the module speaks SPI [%s], the core speaks [" LIFECYCLE_SPI_VERSION "]",
            list.data ? list.data : "");
  buf_free(&list);
  return false;
}

static bool families_read(const Core__Module__V1__ModuleDescriptor *descriptor, unsigned *families, struct error *err) {
  *families = 0;
  for (size_t i = 0; i < descriptor->n_spi_families; i++) {
    size_t index = 0;
    while (family_names[index] && !str_equal(family_names[index], descriptor->spi_families[i]))
      index++;
    if (!family_names[index])
      return error_set(err, ERR_MODULE_DESCRIPTOR, "unknown SPI family \"%.40s\"", descriptor->spi_families[i]);
    *families |= 1u << index;
  }
  return true;
}

static bool parity_check(const Core__Module__V1__ModuleDescriptor *descriptor, struct error *err) {
  static const char *const hooks[] = {"tool_pre_invoke", "tool_post_invoke"};
  for (size_t h = 0; h < sizeof(hooks) / sizeof(hooks[0]); h++) {
    bool served = false;
    for (size_t i = 0; i < descriptor->n_plugin_parity; i++) {
      const Core__Module__V1__PluginParity *parity = descriptor->plugin_parity[i];
      served = served || (str_equal(parity->hook, hooks[h]) &&
                          (parity->parity == CORE__MODULE__V1__HOOK_PARITY__HOOK_PARITY_FULL ||
                           parity->parity == CORE__MODULE__V1__HOOK_PARITY__HOOK_PARITY_DELEGATE));
    }
    if (!served)
      return error_set(err, ERR_MODULE_DESCRIPTOR, "release policy of %.20s: no plugin parity for %s",
                       descriptor->protocol_family, hooks[h]);
  }
  return true;
}

bool lifecycle_descriptor_check(const struct lifecycle_module *module,
                                const Core__Module__V1__ModuleDescriptor *descriptor, unsigned *granted,
                                struct error *err) {
  unsigned families;
  bool sidecar = false;
  if (!str_equal(descriptor->module_id, module->name))
    return error_set(err, ERR_MODULE_DESCRIPTOR, "the module says it is \"%.40s\"", descriptor->module_id);
  if (str_is_empty(descriptor->protocol_family) || str_is_empty(descriptor->module_version))
    return error_set(err, ERR_MODULE_DESCRIPTOR, "protocol family and module version are needed");
  if (!str_is_empty(module->family) && !str_equal(module->family, descriptor->protocol_family))
    return error_set(err, ERR_MODULE_DESCRIPTOR, "configured for family %.31s, but the module speaks %.31s",
                     module->family, descriptor->protocol_family);
  const char *wanted = module->role == LIFECYCLE_CANDIDATE ? module->versions->wanted_version : "";
  if (wanted[0] && !str_equal(descriptor->module_version, wanted))
    return error_set(err, ERR_MODULE_DESCRIPTOR, "version %.63s was asked for, and the module says it is %.63s", wanted,
                     descriptor->module_version);
  for (size_t i = 0; i < descriptor->n_runtime_modes; i++)
    sidecar = sidecar || descriptor->runtime_modes[i] == CORE__MODULE__V1__RUNTIME_MODE__RUNTIME_MODE_SIDECAR;
  if (!sidecar)
    return error_set(err, ERR_MODULE_DESCRIPTOR, "the module does not run as a process of its own");
  if (!versions_check(descriptor, err) || !families_read(descriptor, &families, err))
    return false;
  size_t row = 0;
  while (release_policy[row].protocol_family &&
         !str_equal(release_policy[row].protocol_family, descriptor->protocol_family))
    row++;
  for (size_t i = 0; family_names[i]; i++) {
    if (families & ~release_policy[row].allowed & (1u << i))
      return error_set(err, ERR_MODULE_DESCRIPTOR, "family %.20s may not have SPI family %s",
                       descriptor->protocol_family, family_names[i]);
    if (release_policy[row].needed & ~families & (1u << i))
      return error_set(err, ERR_MODULE_DESCRIPTOR, "family %.20s must ask for SPI family %s",
                       descriptor->protocol_family, family_names[i]);
  }
  if (release_policy[row].plugin_parity && !parity_check(descriptor, err))
    return false;
  *granted = families;
  return true;
}

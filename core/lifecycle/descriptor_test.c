/* descriptor_test.c: which descriptors may start (DSC-5, SPI-1, SPI-17), as a table of what is wrong with each. */
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/test.h"

static char *versions_1[] = {(char *)(uintptr_t) "1"}, *versions_9[] = {(char *)(uintptr_t) "9"};
static char *families_mcp[] = {(char *)(uintptr_t) "auth",   (char *)(uintptr_t) "catalog",
                               (char *)(uintptr_t) "plugin", (char *)(uintptr_t) "session",
                               (char *)(uintptr_t) "config", (char *)(uintptr_t) "observability"};
static char *families_psg[] = {(char *)(uintptr_t) "auth", (char *)(uintptr_t) "catalog", (char *)(uintptr_t) "config",
                               (char *)(uintptr_t) "observability", (char *)(uintptr_t) "psg"};
static char *families_odd[] = {(char *)(uintptr_t) "root"};
static Core__Module__V1__RuntimeMode sidecar[] = {CORE__MODULE__V1__RUNTIME_MODE__RUNTIME_MODE_SIDECAR},
                                     embedded[] = {CORE__MODULE__V1__RUNTIME_MODE__RUNTIME_MODE_EMBEDDED};

/* A descriptor that is fine for module "mcp". */
static Core__Module__V1__ModuleDescriptor good(Core__Module__V1__PluginParity *parity,
                                               Core__Module__V1__PluginParity **pointers) {
  Core__Module__V1__ModuleDescriptor d = CORE__MODULE__V1__MODULE_DESCRIPTOR__INIT;
  d.module_id = (char *)(uintptr_t) "mcp";
  d.protocol_family = (char *)(uintptr_t) "mcp";
  d.module_version = (char *)(uintptr_t) "1.0.0";
  d.n_spi_versions = 1;
  d.spi_versions = versions_1;
  d.n_runtime_modes = 1;
  d.runtime_modes = sidecar;
  d.n_spi_families = 6;
  d.spi_families = families_mcp;
  static const char *const hooks[] = {"tool_pre_invoke", "tool_post_invoke"};
  for (size_t i = 0; i < 2; i++) {
    core__module__v1__plugin_parity__init(&parity[i]);
    parity[i].hook = (char *)(uintptr_t)hooks[i];
    parity[i].parity = CORE__MODULE__V1__HOOK_PARITY__HOOK_PARITY_DELEGATE;
    pointers[i] = &parity[i];
  }
  d.n_plugin_parity = 2;
  d.plugin_parity = pointers;
  return d;
}

static void wrong_id(Core__Module__V1__ModuleDescriptor *d) {
  d->module_id = (char *)(uintptr_t) "rest";
}
static void wrong_spi(Core__Module__V1__ModuleDescriptor *d) {
  d->spi_versions = versions_9;
}
static void no_spi(Core__Module__V1__ModuleDescriptor *d) {
  d->n_spi_versions = 0;
}
static void unknown_family(Core__Module__V1__ModuleDescriptor *d) {
  d->n_spi_families = 1;
  d->spi_families = families_odd;
}
static void too_few_families(Core__Module__V1__ModuleDescriptor *d) {
  d->n_spi_families = 2;
}
static void family_not_for_it(Core__Module__V1__ModuleDescriptor *d) {
  d->protocol_family = (char *)(uintptr_t) "rest-grpc";
  d->n_spi_families = 5;
  d->spi_families = families_psg;
}
static void console_with_catalog(Core__Module__V1__ModuleDescriptor *d) {
  d->protocol_family = (char *)(uintptr_t) "console";
}
static void no_parity(Core__Module__V1__ModuleDescriptor *d) {
  d->n_plugin_parity = 1;
}
static void parity_unsupported(Core__Module__V1__ModuleDescriptor *d) {
  d->plugin_parity[1]->parity = CORE__MODULE__V1__HOOK_PARITY__HOOK_PARITY_UNSUPPORTED;
}
static void embedded_only(Core__Module__V1__ModuleDescriptor *d) {
  d->runtime_modes = embedded;
}
static void no_version(Core__Module__V1__ModuleDescriptor *d) {
  d->module_version = (char *)(uintptr_t) "";
}

static const struct {
  const char *name;
  void (*spoil)(Core__Module__V1__ModuleDescriptor *);
  enum error_code code;
} table[] = {
    {"lies about its id", wrong_id, ERR_MODULE_DESCRIPTOR},
    {"speaks another SPI version", wrong_spi, ERR_MODULE_SPI_VERSION},
    {"speaks no SPI version", no_spi, ERR_MODULE_SPI_VERSION},
    {"asks for an unknown family", unknown_family, ERR_MODULE_DESCRIPTOR},
    {"does not ask for what its protocol needs", too_few_families, ERR_MODULE_DESCRIPTOR},
    {"asks for a family it may not have", family_not_for_it, ERR_MODULE_DESCRIPTOR},
    {"shows metrics and wants the catalog", console_with_catalog, ERR_MODULE_DESCRIPTOR},
    {"says nothing of a hook", no_parity, ERR_MODULE_DESCRIPTOR},
    {"runs no plugins", parity_unsupported, ERR_MODULE_DESCRIPTOR},
    {"is no process of its own", embedded_only, ERR_MODULE_DESCRIPTOR},
    {"has no version", no_version, ERR_MODULE_DESCRIPTOR},
};

START_TEST(a_good_descriptor_is_granted_what_it_asks_for) {
  Core__Module__V1__PluginParity parity[2], *pointers[2];
  Core__Module__V1__ModuleDescriptor d = good(parity, pointers);
  struct lifecycle_module module = {.id = (char *)(uintptr_t) "mcp@2", .name = (char *)(uintptr_t) "mcp"};
  struct error err = {0};
  unsigned granted = 0;
  ck_assert_msg(lifecycle_descriptor_check(&module, &d, &granted, &err), "%s", err.message);
  ck_assert_uint_eq(granted, 0x3f);
}
END_TEST

START_TEST(each_bad_descriptor_is_refused_with_its_code) {
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    Core__Module__V1__PluginParity parity[2], *pointers[2];
    Core__Module__V1__ModuleDescriptor d = good(parity, pointers);
    struct lifecycle_module module = {.id = (char *)(uintptr_t) "mcp@2", .name = (char *)(uintptr_t) "mcp"};
    struct error err = {0};
    unsigned granted = 0;
    table[i].spoil(&d);
    ck_assert_msg(!lifecycle_descriptor_check(&module, &d, &granted, &err), "a module that %s", table[i].name);
    ck_assert_msg(error_is(&err, table[i].code), "%s: %s", table[i].name, err.code);
    ck_assert_uint_eq(granted, 0);
  }
}
END_TEST

START_TEST(a_module_configured_for_another_family_is_refused) {
  Core__Module__V1__PluginParity parity[2], *pointers[2];
  Core__Module__V1__ModuleDescriptor d = good(parity, pointers);
  struct lifecycle_module module = {
      .id = (char *)(uintptr_t) "mcp@2", .name = (char *)(uintptr_t) "mcp", .family = "a2a"};
  struct error err = {0};
  unsigned granted = 0;
  ck_assert(!lifecycle_descriptor_check(&module, &d, &granted, &err));
  ck_assert(error_is(&err, ERR_MODULE_DESCRIPTOR));
}
END_TEST

TEST_MAIN("lifecycle descriptor", a_good_descriptor_is_granted_what_it_asks_for,
          each_bad_descriptor_is_refused_with_its_code, a_module_configured_for_another_family_is_refused)

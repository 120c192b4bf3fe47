/* config_fuzz.c: fuzz target of gatehouse.yaml: any bytes give a configuration or problems with codes and places. */
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/config/config_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static char *const environment[] = {NULL};
  static struct config_problems problems;
  struct config *config = BASE_NEW(struct config);
  if (size > 16384) /* libyaml's time grows with the square of some inputs */
    size = 16384;
  problems = (struct config_problems){0};
  config_scope_defaults(&config_root_scope, config);
  config->path = base_strdup("");
  config->contents = base_strdup("");
  config_file_read(config, "fuzz", (const char *)data, size, &problems);
  config_complete(config, environment);
  config_cross_check(config, &problems);
  BASE_CHECK(problems.count <= CONFIG_PROBLEMS_MAX && problems.count <= problems.total);
  for (size_t i = 0; i < problems.count; i++) {
    struct buf text = {0};
    config_problem_format(&problems.items[i], &text);
    BASE_CHECK(strstr(text.data, "[config.") != NULL);
    buf_free(&text);
  }
  config_free(&config);
  return 0;
}

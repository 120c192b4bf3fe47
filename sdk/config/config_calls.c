/* config_calls.c: names of system calls, as the kernel's headers of this machine have them (sandbox.calls). The list is
 * made when this is built; nothing is looked up while running. */
#include <string.h>
#include <sys/syscall.h>

#include "sdk/config/config.h"

static const struct {
  const char *name;
  int number;
} calls[] = {
#define SYSTEM_CALL(name) {#name, SYS_##name},
#include "config_call_names.def"
#undef SYSTEM_CALL
};

int config_call_number(const char *name) {
  size_t low = 0, high = sizeof(calls) / sizeof(calls[0]); /* they are sorted by name */
  while (low < high) {
    size_t middle = (low + high) / 2;
    int order = strcmp(calls[middle].name, name);
    if (order == 0)
      return calls[middle].number;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return -1;
}

int config_call_last(void) {
  int last = 0;
  for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
    if (calls[i].number > last)
      last = calls[i].number;
  return last;
}

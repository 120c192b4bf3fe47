/* backoff.c: see backoff.h. */
#include "sdk/base/backoff.h"

#include "sdk/base/id.h"

uint32_t backoff_ms(uint32_t first_ms, uint32_t max_ms, unsigned failures) {
  uint64_t wait = first_ms;
  for (unsigned i = 1; i < failures && wait < max_ms; i++)
    wait *= 2;
  if (wait > max_ms)
    wait = max_ms;
  uint64_t spread = wait * 2 / 5;
  return (uint32_t)(wait - spread / 2 + (spread > 0 ? id_random_u64() % (spread + 1) : 0));
}

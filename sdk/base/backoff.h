/* backoff.h: how long to wait before something that failed is tried again (TRN-6): first_ms after one failure, doubled
 * for each further one, at most max_ms, with a fifth of jitter either way, so that many do not come back together. The
 * first try after a success is the caller's and needs no wait. Any thread. */
#ifndef GATEHOUSE_BASE_BACKOFF_H
#define GATEHOUSE_BASE_BACKOFF_H

#include <stdint.h>

/* failures: in a row, 1 or more. In milliseconds. */
uint32_t backoff_ms(uint32_t first_ms, uint32_t max_ms, unsigned failures);

#endif

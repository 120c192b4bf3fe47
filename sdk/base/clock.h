/* clock.h: time. Durations come from the monotonic clock, records from the wall clock. Any thread, no allocation. */
#ifndef GATEHOUSE_BASE_CLOCK_H
#define GATEHOUSE_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_RFC3339_BYTES 32

int64_t clock_monotonic_us(void);
int64_t clock_monotonic_ms(void);
int64_t clock_wall_us(void); /* since 1970-01-01T00:00:00Z */
int64_t clock_wall_ms(void);
/* "2026-07-28T10:00:00.000000Z": always six decimals and Z, so that text order is time order (EVT-14). */
void clock_format_rfc3339(int64_t wall_us, char target[static CLOCK_RFC3339_BYTES]);
bool clock_parse_rfc3339(const char *text, int64_t *wall_us);

#endif

/* spi_run.h: drives calls over sdk/rpc in an event loop: back to back with a number outstanding, or paced by a timer.
 * Shared by the echo client and by the benchmark module, so that both sides of a ratio are driven alike. */
#ifndef GATEHOUSE_BENCH_SPI_RUN_H
#define GATEHOUSE_BENCH_SPI_RUN_H

#include "tests/bench/measure.h"

struct event_base;
struct spi_run;

/* One call in flight; hand it to spi_run_call_ended exactly once. */
struct spi_run_call {
  struct spi_run *run;
  int64_t started_ns;
  uint8_t seed; /* changes with each call */
};

/* Starts one call. */
typedef void spi_run_start(struct spi_run_call *call, void *arg);
/* The run is over; the measure can be ended. The run has freed itself. */
typedef void spi_run_done(struct measure *measure, void *arg);

/* Begins a run of measure->command; everything happens in the loop of base. measure outlives the run. */
void spi_run_begin(struct event_base *base, struct measure *measure, spi_run_start *start, spi_run_done *done,
                   void *arg);
void spi_run_call_ended(struct spi_run_call *call, bool ok);

#endif

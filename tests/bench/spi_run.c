/* spi_run.c: see spi_run.h. Pacing is by a timerfd: libevent's own timers have a resolution of a millisecond. */
#include "tests/bench/spi_run.h"

#include <event2/event.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "sdk/base/alloc.h"

struct spi_run {
  struct event_base *base;
  struct measure *measure;
  spi_run_start *start;
  spi_run_done *done;
  void *arg;
  struct event *pace;
  int pace_fd;
  unsigned in_flight;
  uint8_t seed;
  bool ended;
};

static void call_start(struct spi_run *run, struct spi_run_call *call) {
  run->in_flight++;
  *call = (struct spi_run_call){.run = run, .started_ns = measure_now_ns(), .seed = run->seed++};
  run->start(call, run->arg);
}

static void run_end(struct spi_run *run) {
  struct measure *measure = run->measure;
  spi_run_done *done = run->done;
  void *arg = run->arg;
  if (run->pace != NULL) {
    event_free(run->pace);
    close(run->pace_fd);
  }
  base_free(run);
  done(measure, arg);
}

void spi_run_call_ended(struct spi_run_call *call, bool ok) {
  struct spi_run *run = call->run;
  run->in_flight--;
  measure_record(run->measure, call->started_ns, ok);
  if (run->pace == NULL && measure_is_open(run->measure)) {
    call_start(run, call);
    return;
  }
  base_free(call);
  if (run->in_flight == 0 && !measure_is_open(run->measure))
    run_end(run);
}

static void on_pace(evutil_socket_t fd, short what, void *arg) {
  struct spi_run *run = arg;
  uint64_t ticks;
  (void)what;
  if (read((int)fd, &ticks, sizeof(ticks)) != sizeof(ticks))
    return;
  if (measure_is_open(run->measure))
    call_start(run, BASE_NEW(struct spi_run_call)); /* one, however many ticks were missed */
  else if (run->in_flight == 0)
    run_end(run);
}

void spi_run_begin(struct event_base *base, struct measure *measure, spi_run_start *start, spi_run_done *done,
                   void *arg) {
  struct spi_run *run = BASE_NEW(struct spi_run);
  const struct measure_command *command = &measure->command;
  *run = (struct spi_run){.base = base, .measure = measure, .start = start, .done = done, .arg = arg, .pace_fd = -1};
  if (command->pace_us > 0) {
    const struct timespec pace = {.tv_sec = command->pace_us / 1000000, .tv_nsec = command->pace_us % 1000000 * 1000};
    run->pace_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    timerfd_settime(run->pace_fd, 0, &(struct itimerspec){.it_interval = pace, .it_value = pace}, NULL);
    run->pace = event_new(base, run->pace_fd, EV_READ | EV_PERSIST, on_pace, run);
    event_add(run->pace, NULL);
    return;
  }
  for (unsigned i = 0; i < command->outstanding; i++)
    call_start(run, BASE_NEW(struct spi_run_call));
}

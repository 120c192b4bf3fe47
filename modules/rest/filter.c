/* filter.c: the parent's side of response filters: at most REST_FILTER_WORKERS_MAX children (filter_worker.c), started
 * when a plan first has a filter, each with one job at a time; the rest waits in a bounded queue.
 *
 * A job that takes longer than REST_FILTER_TIME_MS costs its worker the life; one that crashes it ends as failed. Time
 * is the processor's: a worker that this machine did not let run was not slow, and may take REST_FILTER_WAIT_MS in all.
 * A child is named by its pid until its pidfd said that it has ended, so no signal can go astray. Nothing blocks. */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"

#define WORKER_FD 3
#define LOOK_MS 20 /* so often at most its time is looked at */

struct worker {
  TAILQ_ENTRY(worker) link;
  struct rest_filters *filters;
  pid_t pid;
  int pidfd;
  struct event *ended;         /* on the pidfd */
  struct event *time_over;     /* of the job */
  struct bufferevent *channel; /* NULL: it was told to end */
  struct rest_filter_job *job; /* NULL: idle */
  int64_t used_ms, due_ms;     /* at the job's begin: time on the processor; when it ends at the latest */
};

struct rest_filter_job {
  TAILQ_ENTRY(rest_filter_job) link; /* while it waits */
  struct rest_filters *filters;
  bool waiting;
  struct buf frame;       /* what to send */
  rest_filter_done *done; /* NULL: cancelled */
  void *arg;
};

struct rest_filters {
  struct event_base *base;
  const char *program; /* of the worker */
  TAILQ_HEAD(, worker) workers;
  TAILQ_HEAD(, rest_filter_job) queue;
  size_t worker_count; /* of those that take jobs */
  size_t queue_length;
};

static const char *const outcome_texts[REST_FILTER_OUTCOMES] = {
    [REST_FILTER_DONE] = "",
    [REST_FILTER_INVALID] = "The tool's response filter is not a valid jq program.",
    [REST_FILTER_FAILED] = "The tool's response filter failed on the upstream's answer.",
    [REST_FILTER_EMPTY] = "The tool's response filter found nothing in the upstream's answer.",
    [REST_FILTER_TOO_LARGE] = "The tool's response filter takes or makes more than is allowed.",
    [REST_FILTER_TIMEOUT] = "The tool's response filter took too long.",
    [REST_FILTER_BUSY] = "Too many response filters are waiting; retry.",
};

const char *rest_filter_outcome_text(enum rest_filter_outcome outcome) {
  return outcome_texts[outcome];
}

static void next_job(struct rest_filters *filters);

/* ---- children ---- */

static void job_free(struct rest_filter_job *job) {
  buf_free(&job->frame);
  base_free(job);
}

static void worker_free(struct worker *worker) {
  TAILQ_REMOVE(&worker->filters->workers, worker, link);
  event_free(worker->ended);
  event_free(worker->time_over);
  close(worker->pidfd);
  base_free(worker);
}

/* Takes no more jobs and dies; freed when it has. */
static void worker_kill(struct worker *worker) {
  if (!worker->channel)
    return;
  bufferevent_free(BASE_TAKE(worker->channel));
  worker->filters->worker_count--;
  event_del(worker->time_over);
  kill(worker->pid, SIGKILL);
}

static void job_finish(struct rest_filter_job *job, enum rest_filter_outcome outcome, const char *json, size_t length) {
  if (job->done)
    job->done(job->arg, outcome, json, length);
  job_free(job);
}

/* The worker is lost, and its job with it. */
static void worker_lost(struct worker *worker, enum rest_filter_outcome outcome) {
  struct rest_filters *filters = worker->filters;
  struct rest_filter_job *job = BASE_TAKE(worker->job);
  worker_kill(worker);
  log_event(LOG_WARN, "rest", "a filter worker was ended", LOG_TEXT("reason", outcome_texts[outcome]));
  if (job)
    job_finish(job, outcome, NULL, 0);
  next_job(filters);
}

static void on_ended(evutil_socket_t fd, short what, void *arg) {
  struct worker *worker = arg;
  (void)fd, (void)what;
  if (waitpid(worker->pid, NULL, WNOHANG) == 0)
    return;
  event_del(worker->ended);
  if (worker->channel)
    worker_lost(worker, REST_FILTER_FAILED);
  worker_free(worker);
}

/* Milliseconds that the worker has run. The number of its clock is the kernel's, as clock_getcpuclockid() makes it,
 * which asks for more than our sandbox allows. */
static int64_t used_ms(const struct worker *worker) {
  const clockid_t clock = (clockid_t)(~(unsigned)worker->pid << 3 | 2);
  struct timespec used;
  return clock_gettime(clock, &used) == 0 ? (int64_t)used.tv_sec * 1000 + used.tv_nsec / 1000000 : clock_monotonic_ms();
}

static void limit_set(struct worker *worker, int64_t left_ms) {
  const struct timeval limit = {.tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000};
  event_add(worker->time_over, &limit);
}

static void on_time_over(evutil_socket_t fd, short what, void *arg) {
  struct worker *worker = arg;
  int64_t used = used_ms(worker) - worker->used_ms, wait_ms = worker->due_ms - clock_monotonic_ms();
  int64_t left_ms = REST_FILTER_TIME_MS - used < wait_ms ? REST_FILTER_TIME_MS - used : wait_ms;
  (void)fd, (void)what;
  if (left_ms > 0)
    limit_set(worker, left_ms < LOOK_MS ? LOOK_MS : left_ms);
  else
    worker_lost(worker, REST_FILTER_TIMEOUT);
}

static void on_event(struct bufferevent *channel, short what, void *arg) {
  (void)channel, (void)what;
  worker_lost(arg, REST_FILTER_FAILED);
}

static void on_reply(struct bufferevent *channel, void *arg) {
  struct worker *worker = arg;
  struct evbuffer *input = bufferevent_get_input(channel);
  struct rest_filter_reply reply;
  if (evbuffer_copyout(input, &reply, sizeof(reply)) < (ssize_t)sizeof(reply))
    return;
  if (!worker->job || reply.outcome >= REST_FILTER_OUTCOMES || reply.json_bytes > REST_FILTER_OUTPUT_BYTES_MAX) {
    worker_lost(worker, REST_FILTER_FAILED);
    return;
  }
  size_t whole = sizeof(reply) + reply.json_bytes;
  if (evbuffer_get_length(input) < whole)
    return;
  struct rest_filters *filters = worker->filters;
  struct rest_filter_job *job = BASE_TAKE(worker->job);
  event_del(worker->time_over);
  char *json = base_alloc(reply.json_bytes + 1);
  evbuffer_drain(input, sizeof(reply));
  evbuffer_remove(input, json, reply.json_bytes);
  json[reply.json_bytes] = '\0';
  job_finish(job, (enum rest_filter_outcome)reply.outcome, json, reply.json_bytes);
  base_free(json);
  next_job(filters);
}

static bool spawn(const char *path, int fd, pid_t *pid) {
  char *arguments[] = {(char *)(uintptr_t) "gatehouse-rest", (char *)(uintptr_t)REST_FILTER_WORKER_OPTION, NULL};
  char *environment[] = {NULL};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  bool ok =
      posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0) == 0 &&
      posix_spawn_file_actions_adddup2(&actions, 0, 1) == 0 && posix_spawn_file_actions_adddup2(&actions, 0, 2) == 0 &&
      posix_spawn_file_actions_adddup2(&actions, fd, WORKER_FD) == 0 &&
      posix_spawn_file_actions_addclosefrom_np(&actions, WORKER_FD + 1) == 0 &&
      posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK) == 0 &&
      posix_spawnattr_setsigdefault(&attributes, &all) == 0 && posix_spawnattr_setsigmask(&attributes, &none) == 0 &&
      posix_spawn(pid, path, &actions, &attributes, arguments, environment) == 0;
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return ok;
}

static struct worker *worker_start(struct rest_filters *filters) {
  int ends[2] = {-1, -1};
  pid_t pid = -1;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return NULL;
  bool ok = spawn(filters->program, ends[1], &pid);
  close(ends[1]);
  int pidfd = ok ? pidfd_open(pid, 0) : -1;
  if (pidfd < 0) {
    log_event(LOG_ERROR, "rest", "a filter worker cannot be started", LOG_TEXT("program", filters->program));
    if (ok) {
      kill(pid, SIGKILL);
      waitpid(pid, NULL, 0);
    }
    close(ends[0]);
    return NULL;
  }
  struct worker *worker = BASE_NEW(struct worker);
  worker->filters = filters;
  worker->pid = pid;
  worker->pidfd = pidfd;
  worker->ended = event_new(filters->base, pidfd, EV_READ | EV_PERSIST, on_ended, worker);
  worker->time_over = evtimer_new(filters->base, on_time_over, worker);
  evutil_make_socket_nonblocking(ends[0]);
  worker->channel = bufferevent_socket_new(filters->base, ends[0], BEV_OPT_CLOSE_ON_FREE);
  BASE_CHECK(worker->ended && worker->time_over && worker->channel);
  bufferevent_setcb(worker->channel, on_reply, NULL, on_event, worker);
  bufferevent_enable(worker->channel, EV_READ | EV_WRITE);
  event_add(worker->ended, NULL);
  TAILQ_INSERT_TAIL(&filters->workers, worker, link);
  filters->worker_count++;
  return worker;
}

/* ---- jobs ---- */

static struct worker *worker_idle(struct rest_filters *filters) {
  struct worker *worker;
  TAILQ_FOREACH(worker, &filters->workers, link) {
    if (worker->channel && !worker->job)
      return worker;
  }
  return filters->worker_count < REST_FILTER_WORKERS_MAX ? worker_start(filters) : NULL;
}

static void job_queue_leave(struct rest_filter_job *job) {
  TAILQ_REMOVE(&job->filters->queue, job, link);
  job->filters->queue_length--;
  job->waiting = false;
}

static void job_assign(struct rest_filter_job *job, struct worker *worker) {
  worker->job = job;
  worker->used_ms = used_ms(worker);
  worker->due_ms = clock_monotonic_ms() + REST_FILTER_WAIT_MS;
  bufferevent_write(worker->channel, job->frame.data, job->frame.length);
  buf_free(&job->frame);
  limit_set(worker, REST_FILTER_TIME_MS);
}

static void next_job(struct rest_filters *filters) {
  struct rest_filter_job *job;
  while ((job = TAILQ_FIRST(&filters->queue)) != NULL) {
    struct worker *worker = worker_idle(filters);
    if (worker) {
      job_queue_leave(job);
      job_assign(job, worker);
    } else if (filters->worker_count == 0) { /* none can be started, so none will come back for it */
      job_queue_leave(job);
      job_finish(job, REST_FILTER_FAILED, NULL, 0);
    } else {
      return;
    }
  }
}

struct rest_filter_job *rest_filter_start(struct rest_filters *filters, const char *program, const char *json,
                                          size_t length, rest_filter_done *done, void *arg,
                                          enum rest_filter_outcome *outcome) {
  size_t program_bytes = strlen(program);
  *outcome = REST_FILTER_DONE;
  if (program_bytes > REST_FILTER_PROGRAM_BYTES_MAX || length > REST_RESPONSE_BYTES_MAX)
    *outcome = REST_FILTER_TOO_LARGE;
  struct worker *worker = *outcome == REST_FILTER_DONE ? worker_idle(filters) : NULL;
  if (*outcome == REST_FILTER_DONE && !worker) {
    if (filters->worker_count == 0)
      *outcome = REST_FILTER_FAILED;
    else if (filters->queue_length == REST_FILTER_QUEUE_MAX)
      *outcome = REST_FILTER_BUSY;
  }
  if (*outcome != REST_FILTER_DONE)
    return NULL;
  struct rest_filter_job *job = BASE_NEW(struct rest_filter_job);
  struct rest_filter_request request = {(uint32_t)program_bytes, (uint32_t)length};
  job->filters = filters;
  job->done = done;
  job->arg = arg;
  buf_append(&job->frame, &request, sizeof(request));
  buf_append(&job->frame, program, program_bytes);
  buf_append(&job->frame, json, length);
  if (worker) {
    job_assign(job, worker);
  } else {
    job->waiting = true;
    TAILQ_INSERT_TAIL(&filters->queue, job, link);
    filters->queue_length++;
  }
  return job;
}

void rest_filter_cancel(struct rest_filter_job *job) {
  job->done = NULL;
  if (job->waiting) {
    job_queue_leave(job);
    job_free(job);
  }
}

struct rest_filters *rest_filters_create(struct event_base *base, const char *program) {
  struct rest_filters *filters = BASE_NEW(struct rest_filters);
  filters->base = base;
  filters->program = program ? program : "/proc/self/exe";
  TAILQ_INIT(&filters->workers);
  TAILQ_INIT(&filters->queue);
  return filters;
}

void rest_filters_free(struct rest_filters **pointer) {
  struct rest_filters *filters = BASE_TAKE(*pointer);
  if (!filters)
    return;
  struct rest_filter_job *job;
  while ((job = TAILQ_FIRST(&filters->queue)) != NULL) {
    job_queue_leave(job);
    job_free(job);
  }
  struct worker *worker;
  while ((worker = TAILQ_FIRST(&filters->workers)) != NULL) {
    worker_kill(worker);
    if (worker->job)
      job_free(BASE_TAKE(worker->job));
    waitpid(worker->pid, NULL, 0); /* it was killed: this ends at once */
    worker_free(worker);
  }
  base_free(filters);
}

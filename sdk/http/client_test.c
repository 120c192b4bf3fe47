/* client_test.c: the client against our own server on loopback: bodies, limits, deadlines, redirects, the egress
 * policy, streaming with pause, cancelling everywhere. */
#include "sdk/base/test.h"

#include <signal.h>
#include <sys/wait.h>

#include "sdk/http/http_client.h"
#include "sdk/http/http_test_support.h"

struct outcome {
  struct fixture *f;
  unsigned done;
  int status;
  struct error error;
  struct buf body;
  struct buf streamed;
  unsigned redirects;
  unsigned headers;
  bool pause_first;
  bool cancel_in_data;
  struct http_call *call;
};

struct rig {
  struct fixture f;
  struct http_client *client;
  struct http_egress_policy *policy;
};

static void on_done(void *context, struct http_call *call, const struct http_client_response *response,
                    const struct error *err) {
  struct outcome *o = context;
  (void)call;
  o->done++;
  o->status = response->status;
  o->redirects = response->redirects;
  error_clear(&o->error);
  if (err != NULL)
    o->error = *err;
  buf_append(&o->body, response->body->data, response->body->length);
}

static void on_headers(void *context, struct http_call *call, const struct http_client_response *response) {
  struct outcome *o = context;
  (void)call, (void)response;
  o->headers++;
}

static void on_data(void *context, struct http_call *call, const void *data, size_t length) {
  struct outcome *o = context;
  buf_append(&o->streamed, data, length);
  if (o->pause_first) {
    o->pause_first = false;
    http_call_pause(call);
  }
  if (o->cancel_in_data)
    http_call_cancel(call);
}

static void rig_open(struct rig *rig, bool trusted) {
  const char *cidrs[] = {trusted ? "127.0.0.0/8" : "192.168.77.0/24", NULL};
  *rig = (struct rig){0};
  fixture_open_with(&rig->f, NULL, NULL);
  rig->policy = http_egress_policy_create(&(struct http_egress_rules){.trusted_cidrs = cidrs}, NULL);
  rig->client = http_client_create(rig->f.base, &(struct http_client_options){.egress = rig->policy});
}

static void rig_close(struct rig *rig) {
  ck_assert_uint_eq(http_client_in_flight(rig->client), 0);
  http_client_free(&rig->client);
  http_egress_policy_free(&rig->policy);
  fixture_close(&rig->f);
}

static char *url_of(struct rig *rig, const char *host, const char *path) {
  return base_asprintf("http://%s:%u%s", host, rig->f.port, path);
}

static bool begin(struct rig *rig, const char *path, struct http_client_request request, struct outcome *o,
                  struct error *err) {
  char *url = request.url != NULL ? base_strdup(request.url) : url_of(rig, "127.0.0.1", path);
  request.url = url;
  request.on_done = on_done;
  request.context = o;
  o->f = &rig->f;
  o->call = http_client_start(rig->client, &request, err);
  base_free(url);
  ck_assert_uint_eq(o->done, 0);
  return o->call != NULL;
}

static void run(struct rig *rig, const char *path, struct http_client_request request, struct outcome *o) {
  buf_clear(&o->body);
  o->done = 0;
  ck_assert(begin(rig, path, request, o, NULL));
  ck_assert(TURN_UNTIL(&rig->f, o->done == 1));
}

static void outcome_free(struct outcome *o) {
  buf_free(&o->body);
  buf_free(&o->streamed);
}

START_TEST(methods_and_bodies) {
  struct rig rig;
  rig_open(&rig, true);
  struct outcome o = {0};
  run(&rig, "/echo", (struct http_client_request){.body = "abc", .body_bytes = 3, .on_headers = on_headers}, &o);
  ck_assert_int_eq(o.status, 200);
  ck_assert_str_eq(o.body.data, "abc");
  ck_assert_uint_eq(o.headers, 1);
  run(&rig, "/describe?q=1", (struct http_client_request){.method = "PUT", .body = "xy", .body_bytes = 2}, &o);
  ck_assert_int_eq(strncmp(o.body.data, "PUT|/describe|q=1|", 18), 0);
  struct http_header headers[] = {{"X-Many", "v"}};
  run(&rig, "/describe", (struct http_client_request){.headers = headers, .header_count = 1}, &o);
  ck_assert_ptr_nonnull(strstr(o.body.data, "|v|0|11"));
  run(&rig, "/describe", (struct http_client_request){.method = "DELETE"}, &o);
  ck_assert_int_eq(strncmp(o.body.data, "DELETE|", 7), 0);
  run(&rig, "/describe", (struct http_client_request){.method = "HEAD"}, &o);
  ck_assert_int_eq(o.status, 200);
  ck_assert_uint_eq(o.body.length, 0);
  run(&rig, "/describe", (struct http_client_request){0}, &o); /* the same handle, after HEAD */
  ck_assert_int_eq(strncmp(o.body.data, "GET|", 4), 0);
  run(&rig, "/describe", (struct http_client_request){.method = "POST"}, &o);
  ck_assert_int_eq(strncmp(o.body.data, "POST|", 5), 0);
  struct http_server_stats stats;
  http_server_stats_get(rig.f.server, &stats);
  ck_assert_uint_eq(stats.connections_accepted, 1);
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

START_TEST(bad_requests_are_refused_at_once) {
  struct rig rig;
  rig_open(&rig, true);
  struct outcome o = {0};
  struct error err;
  struct http_header bad[][1] = {{{"X", "a\r\nY: b"}}, {{"Host", "x"}}, {{"Content-Length", "3"}}, {{"a b", "c"}}};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    ck_assert(!begin(&rig, "/", (struct http_client_request){.headers = bad[i], .header_count = 1}, &o, &err));
    ck_assert(error_is(&err, ERR_ARGUMENT_INVALID));
  }
  ck_assert(!begin(&rig, "/", (struct http_client_request){.method = "G T"}, &o, &err));
  ck_assert(!begin(&rig, "/", (struct http_client_request){.url = "file:///etc/passwd"}, &o, &err));
  ck_assert(error_is(&err, ERR_HTTP_URL_INVALID));
  static const char *const slashes[] = {"http:/127.0.0.1/", "http:///127.0.0.1/", "http://?x", "http://"};
  for (size_t i = 0; i < sizeof(slashes) / sizeof(slashes[0]); i++) {
    ck_assert(!begin(&rig, "/", (struct http_client_request){.url = slashes[i]}, &o, &err));
    ck_assert(error_is(&err, ERR_HTTP_URL_INVALID));
  }
  ck_assert(!begin(&rig, "/", (struct http_client_request){.url = "http://u:p@127.0.0.1/"}, &o, &err));
  ck_assert(error_is(&err, ERR_HTTP_URL_INVALID));
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

/* Calls are used again: what one request was must not show in the next. */
START_TEST(a_kept_call_remembers_nothing_but_its_origin) {
  static const char *const unfit[] = {"/a b", "/a\\b", "/a\r\nHost: x", "/a\x7f"};
  struct rig rig;
  rig_open(&rig, true);
  struct outcome o = {0};
  struct error err;
  struct http_header headers[] = {{"X-Many", "secret"}};
  run(&rig, "/echo",
      (struct http_client_request){.headers = headers, .header_count = 1, .body = "abc", .body_bytes = 3}, &o);
  ck_assert_str_eq(o.body.data, "abc");
  o.done = 0;
  for (size_t i = 0; i < sizeof(unfit) / sizeof(unfit[0]); i++) {
    ck_assert(!begin(&rig, unfit[i], (struct http_client_request){0}, &o, &err));
    ck_assert(error_is(&err, ERR_HTTP_URL_INVALID));
  }
  char *beside = base_asprintf("http://127.0.0.1:%u@169.254.169.254/", rig.f.port);
  char *longer = base_asprintf("http://127.0.0.1:%u.example.invalid/", rig.f.port);
  ck_assert(!begin(&rig, NULL, (struct http_client_request){.url = beside}, &o, &err));
  ck_assert(!begin(&rig, NULL, (struct http_client_request){.url = longer}, &o, &err));
  ck_assert(!begin(&rig, NULL, (struct http_client_request){.url = "http://169.254.169.254/"}, &o, &err));
  ck_assert(error_is(&err, ERR_HTTP_URL_BLOCKED));
  run(&rig, "/describe", (struct http_client_request){0}, &o);
  ck_assert_int_eq(strncmp(o.body.data, "GET|/describe||", 15), 0);
  ck_assert_ptr_null(strstr(o.body.data, "secret"));
  base_free(beside);
  base_free(longer);
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

START_TEST(the_policy_holds_for_names_at_connect_time) {
  struct rig rig;
  rig_open(&rig, false);
  struct outcome o = {0};
  struct error err;
  ck_assert(!begin(&rig, "/", (struct http_client_request){0}, &o, &err));
  ck_assert(error_is(&err, ERR_HTTP_URL_BLOCKED));
  char *url = url_of(&rig, "localhost", "/");
  run(&rig, NULL, (struct http_client_request){.url = url}, &o);
  ck_assert(error_is(&o.error, ERR_HTTP_URL_BLOCKED));
  ck_assert_uint_eq(rig.f.handled, 0);
  base_free(url);
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

START_TEST(redirects_are_followed_counted_and_checked) {
  struct rig rig;
  rig_open(&rig, true);
  struct outcome o = {0};
  struct http_header secret[] = {{"Authorization", "Bearer s"}};
  struct http_client_request request = {.headers = secret, .header_count = 1, .redirects_max = 2};
  run(&rig, "/redirect?status=302&to=/auth", request, &o);
  ck_assert_str_eq(o.body.data, "Bearer s");
  ck_assert_uint_eq(o.redirects, 1);
  char *elsewhere = base_asprintf("/redirect?status=307&to=http://127.0.0.2:%u/auth", rig.f.port);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* the same port on another address: another origin */
  struct sockaddr_in other = {.sin_family = AF_INET, .sin_port = htons(rig.f.port)};
  inet_pton(AF_INET, "127.0.0.2", &other.sin_addr);
  ck_assert_int_eq(bind(fd, (struct sockaddr *)&other, sizeof(other)), 0);
  ck_assert_int_eq(listen(fd, 8), 0);
  ck_assert(http_server_listen_fd(rig.f.server, fd, NULL, NULL));
  run(&rig, elsewhere, request, &o);
  ck_assert_int_eq(o.status, 200);
  ck_assert_uint_eq(o.body.length, 0); /* the credential stayed at home */
  run(&rig, "/redirect?status=303&to=/describe",
      (struct http_client_request){.body = "abc", .body_bytes = 3, .redirects_max = 1}, &o);
  ck_assert_int_eq(strncmp(o.body.data, "GET|", 4), 0);
  run(&rig, "/redirect?status=308&to=/echo",
      (struct http_client_request){.body = "abc", .body_bytes = 3, .redirects_max = 1}, &o);
  ck_assert_str_eq(o.body.data, "abc");
  run(&rig, "/redirect?status=302&to=http://169.254.169.254/", request, &o);
  ck_assert(error_is(&o.error, ERR_HTTP_URL_BLOCKED));
  run(&rig, "/redirect?status=302&to=file:///etc/passwd", request, &o);
  ck_assert(error_is(&o.error, ERR_HTTP_URL_INVALID));
  run(&rig, "/redirect?status=302&to=/redirect%3Fstatus=302%26to=/redirect%253Fstatus=302%2526to=/", request, &o);
  ck_assert(error_is(&o.error, ERR_HTTP_UPSTREAM_REDIRECTS));
  run(&rig, "/redirect?status=302&to=/auth", (struct http_client_request){0}, &o);
  ck_assert_int_eq(o.status, 302);
  base_free(elsewhere);
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

START_TEST(limits_and_deadlines_hold) {
  struct rig rig;
  rig_open(&rig, true);
  struct outcome o = {0};
  run(&rig, "/big", (struct http_client_request){.response_bytes_max = 1000}, &o);
  ck_assert(error_is(&o.error, ERR_HTTP_UPSTREAM_TOO_LARGE));
  run(&rig, "/big", (struct http_client_request){0}, &o);
  ck_assert_uint_eq(o.body.length, 4000000);
  run(&rig, "/", (struct http_client_request){.response_header_bytes_max = 20}, &o);
  ck_assert(error_is(&o.error, ERR_HTTP_UPSTREAM_TOO_LARGE));
  run(&rig, "/pending", (struct http_client_request){.timeout_ms = 1000}, &o); /* enough to reach it */
  ck_assert(error_is(&o.error, ERR_HTTP_UPSTREAM_TIMEOUT));
  ck_assert_int_eq(o.error.origin, ERROR_ORIGIN_UPSTREAM);
  ck_assert(TURN_UNTIL(&rig.f, rig.f.closes == 1));
  http_request_abort(rig.f.pending);
  run(&rig, "/abort", (struct http_client_request){0}, &o);
  ck_assert(error_is(&o.error, ERR_HTTP_UPSTREAM_PROTOCOL));
  run(&rig, NULL, (struct http_client_request){.url = "http://127.0.0.1:1/"}, &o);
  ck_assert(error_is(&o.error, ERR_HTTP_UPSTREAM_CONNECT));
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

static void run_in_vain(struct rig *rig, struct http_client_request request, struct outcome *o) {
  unsigned closes = rig->f.closes;
  run(rig, "/pending", request, o);
  ck_assert(error_is(&o->error, ERR_HTTP_UPSTREAM_TIMEOUT));
  ck_assert(TURN_UNTIL(&rig->f, rig->f.closes == closes + 1));
  http_request_abort(rig->f.pending);
}

/* The timer of a kept call stays set for the call before. */
START_TEST(each_call_has_its_own_deadline) {
  struct rig rig;
  rig_open(&rig, true);
  struct outcome o = {0};
  run(&rig, "/", (struct http_client_request){.timeout_ms = 300}, &o);
  int64_t began_ms = clock_monotonic_ms();
  run_in_vain(&rig, (struct http_client_request){.timeout_ms = 1000}, &o); /* later than what is set */
  ck_assert_int_ge(clock_monotonic_ms() - began_ms, 990);
  run(&rig, "/", (struct http_client_request){.timeout_ms = 60000}, &o);
  began_ms = clock_monotonic_ms();
  run_in_vain(&rig, (struct http_client_request){.timeout_ms = 1000}, &o); /* sooner */
  ck_assert_int_lt(clock_monotonic_ms() - began_ms, 30000);
  run(&rig, "/", (struct http_client_request){.timeout_ms = INT64_MAX, .idle_timeout_ms = INT64_MAX}, &o);
  ck_assert_int_eq(o.status, 200);
  run_in_vain(&rig, (struct http_client_request){.idle_timeout_ms = 1000}, &o);
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

/* A target is sent as it is written, or through libcurl's URL when something has to be encoded or left away. */
START_TEST(targets_of_every_kind_reach_the_upstream) {
  static const struct {
    const char *path;
    int status;
    const char *seen;
  } targets[] = {
      {"/describe?q=1", 200, "GET|/describe|q=1|"},
      {"/describe?q=2#part", 200, "GET|/describe|q=2|"},
      {"/describe", 200, "GET|/describe||"},
      {"/x/../describe", 400, "{"}, /* our server takes no dots, so it has seen them */
      {"/describe?q=%2F&z", 200, "GET|/describe|q=%2F&z|"},
      {"", 200, "hello"},
      {"/caf\xc3\xa9", 200, "hello"},
      {"/describe?q=3", 200, "GET|/describe|q=3|"},
  };
  struct rig rig;
  rig_open(&rig, true);
  struct outcome o = {0};
  for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
    run(&rig, targets[i].path, (struct http_client_request){0}, &o);
    ck_assert_msg(o.status == targets[i].status && strncmp(o.body.data, targets[i].seen, strlen(targets[i].seen)) == 0,
                  "%s: %d %s", targets[i].path, o.status, o.body.data);
  }
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

START_TEST(streams_pause_and_resume) {
  struct rig rig;
  rig_open(&rig, true);
  struct outcome o = {.pause_first = true};
  ck_assert(begin(&rig, "/big", (struct http_client_request){.on_data = on_data}, &o, NULL));
  ck_assert(TURN_UNTIL(&rig.f, o.streamed.length > 0));
  size_t before = o.streamed.length;
  for (int i = 0; i < 50; i++) {
    turn(&rig.f);
    usleep(200);
  }
  ck_assert_uint_eq(o.streamed.length, before);
  http_call_resume(o.call);
  ck_assert_uint_eq(o.streamed.length, before);
  ck_assert(TURN_UNTIL(&rig.f, o.done == 1));
  ck_assert_uint_eq(o.streamed.length, 4000000);
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

START_TEST(cancel_is_silent) {
  struct rig rig;
  rig_open(&rig, true);
  struct outcome o = {.cancel_in_data = true};
  ck_assert(begin(&rig, "/big", (struct http_client_request){.on_data = on_data}, &o, NULL));
  ck_assert(TURN_UNTIL(&rig.f, http_client_in_flight(rig.client) == 0));
  struct outcome p = {0};
  ck_assert(begin(&rig, "/pending", (struct http_client_request){0}, &p, NULL));
  ck_assert(TURN_UNTIL(&rig.f, rig.f.pending != NULL));
  http_call_cancel(p.call);
  ck_assert(TURN_UNTIL(&rig.f, rig.f.closes == 1)); /* the upstream sees it at once */
  http_request_abort(rig.f.pending);
  ck_assert_uint_eq(o.done + p.done, 0);
  struct outcome q = {0};
  ck_assert(begin(&rig, "/pending", (struct http_client_request){0}, &q, NULL));
  http_client_free(&rig.client); /* with a call in flight */
  ck_assert_uint_eq(q.done, 0);
  rig.client = http_client_create(rig.f.base, &(struct http_client_options){.egress = rig.policy});
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

START_TEST(python_server_answers) {
  struct rig rig;
  rig_open(&rig, true);
  uint16_t port;
  int probe = fixture_listen(&port);
  close(probe);
  char text[16], address[20];
  unsigned self = (unsigned)getpid();
  snprintf(text, sizeof(text), "%u", port);
  snprintf(address, sizeof(address), "127.%u.%u.%u", 1 + (self >> 16) % 250, self >> 8 & 255, self & 255);
  /* an address of its own: on that of all others somebody may take the port in between */
  pid_t child = fork();
  if (child == 0) {
    int null = open("/dev/null", O_RDWR);
    dup2(null, 1);
    dup2(null, 2);
    execlp("python3", "python3", "-m", "http.server", "--bind", address, text, (char *)NULL);
    _exit(127);
  }
  char *url = base_asprintf("http://%s:%u/", address, port);
  struct outcome o = {0};
  int64_t give_up = clock_monotonic_ms() + 40000;
  do { /* until it listens */
    run(&rig, NULL, (struct http_client_request){.url = url}, &o);
    usleep(10000);
  } while (o.status == 0 && clock_monotonic_ms() < give_up);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  ck_assert_int_eq(o.status, 200);
  ck_assert_uint_gt(o.body.length, 0);
  base_free(url);
  outcome_free(&o);
  rig_close(&rig);
}
END_TEST

TEST_MAIN("http.client", methods_and_bodies, bad_requests_are_refused_at_once,
          a_kept_call_remembers_nothing_but_its_origin, the_policy_holds_for_names_at_connect_time,
          redirects_are_followed_counted_and_checked, limits_and_deadlines_hold, each_call_has_its_own_deadline,
          targets_of_every_kind_reach_the_upstream, streams_pause_and_resume, cancel_is_silent, python_server_answers)

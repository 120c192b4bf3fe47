/* client.c: libcurl's multi handle driven by the loop: its sockets become events, its timer an event, its finished
 * transfers calls to call_completed(). Calls are kept for reuse with their easy handles; connections are kept by the
 * multi handle. */
#include <string.h>
#include <unistd.h>

#include "sdk/http/client_internal.h"

#define CONNECTIONS_DEFAULT 256L
#define PER_ORIGIN_DEFAULT 64L
#define IDLE_DEFAULT 64L

/* ---- the multi handle on the loop ---- */

static void take_completions(struct http_client *client) {
  CURLMsg *message;
  int left;
  while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
    if (message->msg != CURLMSG_DONE)
      continue;
    struct http_call *call = NULL;
    CURLcode code = message->data.result;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
    call_completed(call, code);
  }
}

static void act(struct http_client *client, curl_socket_t fd, int what) {
  int running;
  client->inside++;
  curl_multi_socket_action(client->multi, fd, what, &running);
  client->inside--;
  take_completions(client);
}

static void on_socket_ready(evutil_socket_t fd, short what, void *context) {
  struct http_client *client = context;
  if (!client->sockets[fd].wanted) { /* a kept connection ends, or says what nobody asked: libcurl finds out itself */
    event_del(client->sockets[fd].event);
    return;
  }
  act(client, fd, ((what & EV_READ) != 0 ? CURL_CSELECT_IN : 0) | ((what & EV_WRITE) != 0 ? CURL_CSELECT_OUT : 0));
}

/* ---- libcurl's timer ----
 *
 * libcurl moves its timer several times for each call, nearly always to a time that never comes. So the event is set
 * only when it would come too late; when it comes too early, it is set again. */

static void timer_arm(struct http_client *client, int64_t now_us) {
  int64_t wait_us = client->timer_due_us > now_us ? client->timer_due_us - now_us : 0;
  struct timeval timeout = {.tv_sec = wait_us / 1000000, .tv_usec = wait_us % 1000000};
  client->timer_pending_us = client->timer_due_us;
  evtimer_add(client->timer, &timeout);
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
  struct http_client *client = context;
  int64_t now_us = clock_monotonic_us();
  (void)fd, (void)what;
  client->timer_pending_us = INT64_MAX;
  if (client->timer_due_us == INT64_MAX)
    return;
  if (client->timer_due_us > now_us) {
    timer_arm(client, now_us);
    return;
  }
  client->timer_due_us = INT64_MAX; /* libcurl names the next one */
  act(client, CURL_SOCKET_TIMEOUT, 0);
}

static void on_begin(evutil_socket_t fd, short what, void *context) {
  (void)fd, (void)what;
  act(context, CURL_SOCKET_TIMEOUT, 0);
}

static struct http_socket *socket_of(struct http_client *client, curl_socket_t fd) {
  size_t index = (size_t)fd;
  if (index >= client->socket_count) {
    size_t count = index + 32;
    client->sockets = base_realloc_array(client->sockets, count, sizeof(*client->sockets));
    memset(client->sockets + client->socket_count, 0, (count - client->socket_count) * sizeof(*client->sockets));
    client->socket_count = count;
  }
  return &client->sockets[index];
}

static void socket_forget(struct http_socket *place) {
  if (place->event != NULL)
    event_free(place->event);
  *place = (struct http_socket){0};
}

void client_socket_opened(struct http_client *client, curl_socket_t fd) {
  struct http_socket *place = socket_of(client, fd);
  socket_forget(place);
  place->ours = true;
}

int client_on_close(void *context, curl_socket_t fd) {
  socket_forget(socket_of(context, fd));
  return close(fd);
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *socket_context) {
  struct http_client *client = context;
  struct http_socket *place = socket_of(client, fd);
  struct event *event = place->event;
  (void)easy, (void)socket_context;
  place->wanted = what != CURL_POLL_REMOVE;
  if (!place->wanted) {
    if (!place->ours) /* of libcurl's resolver: its number may soon be another's */
      socket_forget(place);
    return 0;
  }
  short kinds =
      (short)(((what & CURL_POLL_IN) != 0 ? EV_READ : 0) | ((what & CURL_POLL_OUT) != 0 ? EV_WRITE : 0) | EV_PERSIST);
  if (event == NULL) {
    event = place->event = event_new(client->base, fd, kinds, on_socket_ready, client);
    BASE_CHECK(event != NULL);
  } else if (event_get_events(event) != kinds) {
    event_del(event);
    event_assign(event, client->base, fd, kinds, on_socket_ready, client);
  } else if (event_pending(event, kinds, NULL)) {
    return 0;
  }
  event_add(event, NULL);
  return 0;
}

static int set_timer(CURLM *multi, long timeout_ms, void *context) {
  struct http_client *client = context;
  (void)multi;
  if (timeout_ms < 0) {
    client->timer_due_us = INT64_MAX;
    return 0;
  }
  if (client->adding)
    return 0; /* at once, that is: by the begin event, after which libcurl names its next time */
  int64_t now_us = clock_monotonic_us();
  client->timer_due_us = now_us + timeout_ms * 1000;
  if (client->timer_due_us < client->timer_pending_us)
    timer_arm(client, now_us);
  return 0;
}

bool client_add(struct http_call *call) {
  struct http_client *client = call->kept.client;
  if (client->inside > 0) {
    call->start_late = true;
    client_kick_soon(client);
    return true;
  }
  call->start_late = false;
  client->adding = true;
  call->added = curl_multi_add_handle(client->multi, call->kept.easy) == CURLM_OK;
  client->adding = false;
  event_active(client->begin, EV_TIMEOUT, 0); /* in this turn of the loop, with all that were added in it */
  return call->added;
}

void client_kick_soon(struct http_client *client) {
  event_active(client->kick, EV_TIMEOUT, 0);
}

/* What the user asked for while libcurl was on the stack. One call may end inside curl_easy_pause() only by libcurl's
 * own queue, so the list is stable but for the call at hand. */
static void on_kick(evutil_socket_t fd, short what, void *context) {
  struct http_client *client = context;
  (void)fd, (void)what;
  struct http_call *call, *next;
  for (call = TAILQ_FIRST(&client->calls); call != NULL; call = next) {
    next = TAILQ_NEXT(call, link);
    if (call->cancelled) {
      call_free(call);
    } else if (call->start_late) {
      struct error error;
      if (!client_add(call)) {
        error_set(&error, ERR_INTERNAL, NULL);
        call_fail(call, &error);
        client_kick_soon(client); /* the list may have changed: start over */
        return;
      }
    } else if (call->curl_paused && !call->paused) {
      call->curl_paused = false;
      client->inside++;
      curl_easy_pause(call->kept.easy, CURLPAUSE_CONT);
      client->inside--;
    }
  }
  take_completions(client);
}

/* ---- easy handles ---- */

CURL *client_easy_create(struct http_client *client) {
  CURL *easy = curl_easy_init();
  BASE_CHECK(easy != NULL);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_PROXY, "");
  curl_easy_setopt(easy, CURLOPT_NOPROXY, "*"); /* nor is the environment asked about exceptions */
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
  curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, call_on_socket);
  curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, client_on_close);
  curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, client);
  curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, call_on_send);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, call_on_header);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, call_on_data);
  if (client->ca_file != NULL)
    curl_easy_setopt(easy, CURLOPT_CAINFO, client->ca_file);
  return easy;
}

/* ---- the client ---- */

struct http_client *http_client_create(struct event_base *base, const struct http_client_options *options) {
  struct http_client *client = BASE_NEW(struct http_client);
  client->magic = HTTP_CLIENT_MAGIC;
  client->base = base;
  client->egress = options->egress;
  if (client->egress == NULL)
    client->egress = client->own_egress = http_egress_policy_create(NULL, NULL);
  client->ca_file = options->ca_file != NULL ? base_strdup(options->ca_file) : NULL;
  client->agent_field = base_asprintf("User-Agent: %s", options->user_agent != NULL ? options->user_agent
                                                                                    : "gatehouse/" GATEHOUSE_VERSION);
  client->timer_due_us = client->timer_pending_us = INT64_MAX;
  client->timer = evtimer_new(base, on_timer, client);
  client->begin = evtimer_new(base, on_begin, client);
  client->kick = evtimer_new(base, on_kick, client);
  client->multi = curl_multi_init();
  BASE_CHECK(client->timer != NULL && client->begin != NULL && client->kick != NULL && client->multi != NULL);
  TAILQ_INIT(&client->calls);
  CURLM *multi = client->multi;
  curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
  curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, client);
  curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
  curl_multi_setopt(multi, CURLMOPT_TIMERDATA, client);
  long in_all = options->connections_max > 0 ? options->connections_max : CONNECTIONS_DEFAULT;
  long per_origin = options->connections_per_origin_max > 0 ? options->connections_per_origin_max : PER_ORIGIN_DEFAULT;
  long idle = options->idle_connections_max > 0 ? options->idle_connections_max : IDLE_DEFAULT;
  curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, in_all);
  curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, per_origin);
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, idle);
  return client;
}

void http_client_free(struct http_client **pointer) {
  struct http_client *client = *pointer;
  if (client == NULL)
    return;
  BASE_CHECK_MAGIC(client, HTTP_CLIENT_MAGIC);
  BASE_CHECK(client->inside == 0);
  *pointer = NULL;
  struct http_call *call;
  while ((call = TAILQ_FIRST(&client->calls)) != NULL)
    call_free(call);
  while (client->kept_count > 0)
    call_destroy(client->kept[--client->kept_count]);
  curl_multi_cleanup(client->multi); /* closes the kept connections */
  for (size_t i = 0; i < client->socket_count; i++)
    socket_forget(&client->sockets[i]);
  base_free(client->sockets);
  event_free(client->timer);
  event_free(client->begin);
  event_free(client->kick);
  http_egress_policy_free(&client->own_egress);
  base_free(client->ca_file);
  base_free(client->agent_field);
  client->magic = 0;
  base_free(client);
}

size_t http_client_in_flight(const struct http_client *client) {
  return client->call_count;
}

struct http_call *http_client_start(struct http_client *client, const struct http_client_request *request,
                                    struct error *err) {
  BASE_CHECK_MAGIC(client, HTTP_CLIENT_MAGIC);
  BASE_CHECK(request->on_done != NULL);
  struct http_call *call = call_take(client);
  if (!setup_copy_request(call, request, err)) {
    call_free(call);
    return NULL;
  }
  if (!setup_easy(call) || !client_add(call)) {
    call_free(call);
    error_set(err, ERR_INTERNAL, NULL);
    return NULL;
  }
  call_timers_start(call);
  return call;
}

/* refusals_test.c: how long a client that is refused can keep its place, and what happens without descriptors. What it
 * is told is tested against the whole gateway, by tests/integration/test_lifecycle.py. */
#include <arpa/inet.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sdk/base/clock.h"
#include "sdk/base/test.h"
#include "supervisor/supervisor_internal.h"

#define PLACE_MS_MAX 10000 /* two seconds to begin, two to leave; turns alone (TURNS_MAX) would end it after 12.8 */
#define SLACK_MS 5000
#define TRICKLE_MS 200

/* A listener whose one module is held down. */
static char front[] = "front", *listener_names[] = {front};
static struct config_listener listener_config = {.name = front};
static struct config_module module_config = {.id = "mcp", .family = "mcp", .listeners = {listener_names, 1}};
static struct config config = {.listeners = &listener_config, .listeners_count = 1};
static struct listener listener = {.config = &listener_config};
static struct child children[2] = {
    {.id = "core", .is_core = true},
    {.id = "mcp", .config = &module_config, .held = true, .hold_code = "module.stopped"}};
static struct supervisor supervisor = {
    .config = &config, .listeners = &listener, .children = children, .child_count = 2};
static struct sockaddr_in address = {.sin_family = AF_INET};

static void refusing(void) {
  socklen_t length = sizeof(address);
  supervisor.base = event_base_new();
  listener.supervisor = &supervisor;
  listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ck_assert_int_eq(bind(listener.fd, (struct sockaddr *)&address, sizeof(address)), 0);
  ck_assert_int_eq(listen(listener.fd, 16), 0);
  ck_assert_int_eq(getsockname(listener.fd, (struct sockaddr *)&address, &length), 0);
  refusals_init(&supervisor);
  refusals_update(&supervisor);
  ck_assert(listener.refuses);
}

static int client(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
  return fd;
}

static unsigned places_taken(void) {
  unsigned taken = 0;
  for (size_t i = 0; i < REFUSED_MAX; i++)
    taken += supervisor.refused[i].fd >= 0;
  return taken;
}

/* One turn of the loop after the other until so many places are taken; returns how long that took. */
static int64_t until_taken(unsigned count) {
  int64_t start = clock_monotonic_ms();
  while (places_taken() != count && clock_monotonic_ms() - start < PLACE_MS_MAX + SLACK_MS)
    event_base_loop(supervisor.base, EVLOOP_ONCE);
  ck_assert_uint_eq(places_taken(), count);
  return clock_monotonic_ms() - start;
}

static void on_trickle(evutil_socket_t fd, short what, void *context) {
  (void)fd, (void)what;
  send(*(int *)context, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

START_TEST(a_client_that_trickles_loses_its_place_as_soon_as_one_that_is_silent) {
  const struct timeval pause = {.tv_usec = TRICKLE_MS * 1000};
  refusing();
  int fd = client();
  struct event *trickle = event_new(supervisor.base, -1, EV_PERSIST, on_trickle, &fd);
  event_add(trickle, &pause);
  until_taken(1);
  ck_assert_int_le(until_taken(0), PLACE_MS_MAX);
  event_free(trickle);
  close(fd);
  fd = client();
  until_taken(1);
  ck_assert_int_le(until_taken(0), PLACE_MS_MAX); /* it said nothing */
  close(fd);
  refusals_close(&supervisor);
}
END_TEST

START_TEST(without_descriptors_accepting_pauses_and_goes_on) {
  struct rlimit limit, none;
  char answer[1024] = "";
  unsigned turns = 0;
  refusing();
  int fd = client(), lowest = dup(fd);
  close(lowest);
  ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
  none = (struct rlimit){.rlim_cur = (rlim_t)lowest, .rlim_max = limit.rlim_max};
  ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
  for (int64_t start = clock_monotonic_ms(); turns < 2 || clock_monotonic_ms() - start < 350; turns++)
    event_base_loop(supervisor.base, EVLOOP_ONCE);
  ck_assert_uint_le(turns, 10); /* it asks again, and not all the time */
  ck_assert_uint_eq(places_taken(), 0);
  ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
  send(fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL);
  until_taken(1);
  while (recv(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT) < 0)
    event_base_loop(supervisor.base, EVLOOP_ONCE);
  ck_assert_ptr_nonnull(strstr(answer, "503 Service Unavailable"));
  ck_assert_ptr_nonnull(strstr(answer, "module.stopped"));
  close(fd);
  refusals_close(&supervisor);
}
END_TEST

/* A pause that is under way when the module is let go is over with it. */
START_TEST(a_module_that_is_let_go_in_a_pause_has_its_listener_for_itself) {
  struct rlimit limit, none;
  refusing();
  int fd = client(), lowest = dup(fd);
  close(lowest);
  ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
  none = (struct rlimit){.rlim_cur = (rlim_t)lowest, .rlim_max = limit.rlim_max};
  ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
  event_base_loop(supervisor.base, EVLOOP_ONCE);
  ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
  children[1].held = false;
  refusals_update(&supervisor);
  ck_assert(!listener.refuses);
  ck_assert_int_eq(event_base_get_num_events(supervisor.base, EVENT_BASE_COUNT_ADDED), 0);
  close(fd);
}
END_TEST

TEST_MAIN("supervisor.refusals", a_client_that_trickles_loses_its_place_as_soon_as_one_that_is_silent,
          without_descriptors_accepting_pauses_and_goes_on,
          a_module_that_is_let_go_in_a_pause_has_its_listener_for_itself)

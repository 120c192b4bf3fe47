/* listen_test.c: sockets, locks, who connects and who went away, and channels to a server that dies (TRN-4, T5, T6,
 * T9). */
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <errno.h>

#include "core/rpc/test_harness.h"

static int connect_raw(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, path, strlen(path) + 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

/* Listening, connecting and closing on the core thread of a running loop. */
struct opening {
  struct harness *harness;
  struct core_rpc_listen_options options;
  struct core_rpc_listener *listener;
  struct core_rpc_channel *channel;
  struct error err;
  bool connections_too;
  int reason; /* errno of a connection that was not made */
};

static void opening_listen(void *argument) {
  struct opening *opening = argument;
  opening->listener = core_rpc_listen(opening->harness->loop, &opening->options, &opening->err);
}

static void opening_connect(void *argument) {
  struct opening *opening = argument;
  opening->channel = core_rpc_channel_create(opening->harness->loop, opening->options.path);
  opening->reason = opening->channel ? 0 : errno;
}

static void opening_close(void *argument) {
  struct opening *opening = argument;
  core_rpc_listener_close(&opening->listener, opening->connections_too);
  core_rpc_channel_close(&opening->channel);
}

static bool opening_try(struct opening *opening) {
  harness_on_core(opening->harness, opening_listen, opening);
  return opening->listener != NULL;
}

START_TEST(the_socket_file_is_private_and_goes_away_at_stop) {
  struct harness harness;
  harness_start(&harness);
  struct stat status;
  ck_assert_int_eq(stat(harness.path, &status), 0);
  ck_assert_uint_eq(status.st_mode & 0777, 0600);
  core_rpc_loop_stop(harness.loop, 0);
  pthread_join(harness.thread, NULL);
  ck_assert_int_ne(stat(harness.path, &status), 0);
  core_rpc_loop_free(&harness.loop);
  harness_remove_directory(&harness);
}
END_TEST

static struct core_rpc_listener *listen_at(struct harness *harness, const char *path, struct error *err) {
  return core_rpc_listen(
      harness->loop,
      &(struct core_rpc_listen_options){
          .path = path, .name = "second", .owner_uid = (uid_t)-1, .owner_gid = (gid_t)-1, .mode = 0660},
      err);
}

START_TEST(a_path_is_served_once_and_what_is_no_socket_is_left_alone) {
  struct harness harness;
  harness_prepare(&harness, NULL);
  struct error err;
  ck_assert_ptr_null(listen_at(&harness, harness.path, &err));
  ck_assert_str_eq(err.code, "rpc.listen.busy");
  char *file = base_asprintf("%s/file", harness.directory);
  close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  ck_assert_ptr_null(listen_at(&harness, file, &err));
  ck_assert_str_eq(err.code, "rpc.listen.failed");
  ck_assert_int_eq(access(file, F_OK), 0);
  ck_assert_ptr_null(strstr(err.message, harness.directory)); /* ERR-3 */
  char *absent = base_asprintf("%s/no/such/folder.sock", harness.directory);
  ck_assert_ptr_null(listen_at(&harness, absent, &err));
  char *endless = base_asprintf("%s/%0120d", harness.directory, 1);
  ck_assert_ptr_null(listen_at(&harness, endless, &err));
  ck_assert_str_eq(err.code, "rpc.listen.failed");
  base_free(file);
  base_free(absent);
  base_free(endless);
  core_rpc_loop_free(&harness.loop);
  harness_remove_directory(&harness);
}
END_TEST

START_TEST(a_stale_socket_is_replaced_and_a_closed_path_can_be_served_again) {
  struct harness harness;
  harness_prepare(&harness, NULL);
  char *path = base_asprintf("%s/second.sock", harness.directory);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, path, strlen(path) + 1);
  int stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_eq(bind(stale, (const struct sockaddr *)&address, sizeof(address)), 0);
  close(stale);
  harness_go(&harness);
  for (unsigned i = 0; i < 3; i++) {
    struct opening opening = {
        .harness = &harness,
        .options = {.path = path, .name = "second", .owner_uid = (uid_t)-1, .owner_gid = (gid_t)-1, .mode = 0660},
        .connections_too = true};
    WAIT_UNTIL(opening_try(&opening)); /* the lock goes when the I/O thread is through */
    struct stat status;
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0660);
    harness_on_core(&harness, opening_connect, &opening);
    struct probe probe = {.request = {.method = "/test.v1.Test/Who"}, .channel = opening.channel};
    probe_run(&harness, &probe);
    ck_assert_int_eq(strncmp(probe.data.data, "second ", 7), 0);
    buf_free(&probe.data);
    harness_on_core(&harness, opening_close, &opening);
  }
  base_free(path);
  harness_stop(&harness, 1000);
}
END_TEST

/* Looks for a socket all the time, and connects as soon as it is there. */
struct eager {
  const char *path;
  atomic_bool go, done;
  unsigned refused;
};

static void *eager_run(void *argument) {
  struct eager *eager = argument;
  while (!atomic_load(&eager->done)) {
    if (!atomic_load(&eager->go) || access(eager->path, F_OK) != 0)
      continue;
    int fd = connect_raw(eager->path);
    eager->refused += fd < 0;
    if (fd >= 0)
      close(fd);
    atomic_store(&eager->go, false);
  }
  return NULL;
}

START_TEST(who_sees_a_socket_can_connect_to_it) {
  struct harness harness;
  harness_start(&harness);
  char *path = base_asprintf("%s/eager.sock", harness.directory);
  struct eager eager = {.path = path};
  struct opening opening = {.harness = &harness,
                            .options = {.path = path, .name = "eager", .owner_uid = getuid(), .owner_gid = getgid()},
                            .connections_too = true};
  pthread_t thread;
  ck_assert_int_eq(pthread_create(&thread, NULL, eager_run, &eager), 0);
  for (unsigned i = 0; i < 200; i++) {
    WAIT_UNTIL(access(path, F_OK) != 0);
    atomic_store(&eager.go, true);
    WAIT_UNTIL(opening_try(&opening)); /* the lock goes when the I/O thread is through */
    WAIT_UNTIL(!atomic_load(&eager.go));
    harness_on_core(&harness, opening_close, &opening);
  }
  atomic_store(&eager.done, true);
  pthread_join(thread, NULL);
  ck_assert_uint_eq(eager.refused, 0);
  base_free(path);
  harness_stop(&harness, 1000);
}
END_TEST

static struct {
  atomic_uint accepted, closed;
  atomic_bool refuse;
  uint64_t last_connection;
  bool wrong;
} watched;

static bool watched_accept(struct core_rpc_peer *peer, void *user) {
  watched.wrong = watched.wrong || user != &watched || peer->uid != getuid() || peer->pid != getpid() ||
                  peer->connection <= watched.last_connection;
  watched.last_connection = peer->connection;
  peer->user = &watched;
  if (atomic_load(&watched.refuse))
    return false;
  atomic_fetch_add(&watched.accepted, 1);
  return true;
}

static void watched_close(struct core_rpc_peer *peer, void *user) {
  watched.wrong = watched.wrong || user != &watched || peer->user != &watched;
  atomic_fetch_add(&watched.closed, 1);
}

static struct opening watched_open(struct harness *harness, const char *path) {
  struct opening opening = {.harness = harness,
                            .options = {.path = path,
                                        .name = "watched",
                                        .owner_uid = (uid_t)-1,
                                        .owner_gid = (gid_t)-1,
                                        .on_accept = watched_accept,
                                        .on_close = watched_close,
                                        .user = &watched}};
  ck_assert(opening_try(&opening));
  return opening;
}

START_TEST(the_owner_of_a_socket_hears_of_each_connection_and_of_its_end) {
  struct harness harness;
  harness_start(&harness);
  char *path = base_asprintf("%s/watched.sock", harness.directory);
  struct opening opening = watched_open(&harness, path);
  enum { CONNECTIONS = 20 };
  int fds[CONNECTIONS];
  for (unsigned i = 0; i < CONNECTIONS; i++)
    ck_assert_int_ge(fds[i] = connect_raw(path), 0);
  WAIT_UNTIL(atomic_load(&watched.accepted) == CONNECTIONS);
  ck_assert_uint_eq(watched.closed, 0);
  ck_assert_int_eq(write(fds[0], "this is not HTTP/2, is it?\r\n\r\n", 30), 30); /* gRPC hangs up */
  WAIT_UNTIL(atomic_load(&watched.closed) == 1);
  for (unsigned i = 0; i < CONNECTIONS; i++)
    close(fds[i]);
  WAIT_UNTIL(atomic_load(&watched.closed) == CONNECTIONS);
  atomic_store(&watched.refuse, true);
  int refused = connect_raw(path);
  char byte;
  ck_assert_int_ge(refused, 0);
  ck_assert_int_eq(read(refused, &byte, 1), 0); /* closed at once */
  close(refused);
  atomic_store(&watched.refuse, false);
  int kept = connect_raw(path);
  WAIT_UNTIL(atomic_load(&watched.accepted) == CONNECTIONS + 1);
  opening.connections_too = true;
  harness_on_core(&harness, opening_close, &opening);
  while (read(kept, &byte, 1) > 0) {
  }
  WAIT_UNTIL(atomic_load(&watched.closed) == CONNECTIONS + 1);
  close(kept);
  ck_assert(!watched.wrong);
  base_free(path);
  harness_stop(&harness, 1000);
  ck_assert_uint_eq(watched.closed, CONNECTIONS + 1);
}
END_TEST

static unsigned descriptors_open(void) {
  unsigned count = 0;
  DIR *directory = opendir("/proc/self/fd");
  while (readdir(directory) != NULL)
    count++;
  closedir(directory);
  return count;
}

START_TEST(no_descriptor_leaks_over_many_connections) {
  struct harness harness;
  harness_start(&harness);
  char *path = base_asprintf("%s/watched.sock", harness.directory);
  struct opening opening = watched_open(&harness, path);
  unsigned open_before = 0;
  for (unsigned round = 0; round < 3000; round++) {
    int fd = connect_raw(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    if (round % 100 == 99)
      WAIT_UNTIL(atomic_load(&watched.closed) == round + 1);
    if (round == 99) /* whatever gRPC opens once is open */
      open_before = descriptors_open();
  }
  WAIT_UNTIL(descriptors_open() <= open_before + 1); /* gRPC closes a little later than we hear of it */
  harness_on_core(&harness, opening_close, &opening);
  base_free(path);
  harness_stop(&harness, 1000);
}
END_TEST

/* ---- the other side dies and comes back ---- */

static void serve_until_killed(const char *path) {
  struct core_rpc_loop *loop = core_rpc_loop_create(NULL);
  core_rpc_server_register(loop, test_service_methods, TEST_SERVICE_METHODS);
  if (core_rpc_listen(loop,
                      &(struct core_rpc_listen_options){
                          .path = path, .name = "other", .owner_uid = (uid_t)-1, .owner_gid = (gid_t)-1},
                      NULL) == NULL)
    _exit(1);
  core_rpc_loop_run(loop);
  _exit(0);
}

/* Forks before this process has started gRPC (T4): the children wait for a byte, then serve. */
static pid_t server_spawn(const char *path, int *go) {
  int pipe_fds[2];
  ck_assert_int_eq(pipe(pipe_fds), 0);
  pid_t pid = fork();
  if (pid == 0) {
    char byte;
    close(pipe_fds[1]);
    if (read(pipe_fds[0], &byte, 1) != 1)
      _exit(1);
    serve_until_killed(path);
  }
  close(pipe_fds[0]);
  *go = pipe_fds[1];
  return pid;
}

static void server_kill(pid_t pid) {
  ck_assert_int_eq(kill(pid, SIGKILL), 0);
  ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

START_TEST(a_channel_lives_as_long_as_its_server_and_fails_its_calls_at_once_when_that_is_killed) {
  char directory[] = "/tmp/core_rpc_test.XXXXXX";
  ck_assert_ptr_nonnull(mkdtemp(directory));
  char *path = base_asprintf("%s/other.sock", directory);
  int go[2];
  pid_t first = server_spawn(path, &go[0]), second = server_spawn(path, &go[1]);
  struct harness harness;
  harness_start(&harness);
  struct opening opening = {.harness = &harness, .options.path = path};
  harness_on_core(&harness, opening_connect, &opening);
  ck_assert_ptr_null(opening.channel);
  ck_assert_int_eq(opening.reason, ENOENT);
  ck_assert_int_eq(write(go[0], "x", 1), 1);
  int raw = -1;
  WAIT_UNTIL((raw = connect_raw(path)) >= 0);
  close(raw);
  harness_on_core(&harness, opening_connect, &opening);
  struct core_rpc_channel *channel = opening.channel;
  ck_assert_ptr_nonnull(channel);
  struct probe ready = {.request = {.method = "/test.v1.Test/Echo"}, .channel = channel};
  probe_run(&harness, &ready);
  ck_assert_int_eq(ready.grpc_status, 0);
  struct probe held = {.request = {.method = "/test.v1.Test/Hold"}, .channel = channel};
  probe_begin(&harness, &held);
  usleep(50000);
  server_kill(first);
  int64_t killed_ms = clock_monotonic_ms();
  probe_wait(&held);
  ck_assert_int_eq(held.grpc_status, 14);
  ck_assert_str_eq(held.err.code, "rpc.peer.gone");
  ck_assert_int_lt(clock_monotonic_ms() - killed_ms, 5000); /* its deadline is at 20 s */
  harness_on_core(&harness, opening_connect, &opening);
  ck_assert_ptr_null(opening.channel);
  ck_assert_int_eq(opening.reason, ECONNREFUSED);
  ck_assert_int_eq(write(go[1], "x", 1), 1);
  WAIT_UNTIL((raw = connect_raw(path)) >= 0);
  close(raw);
  struct probe after = {.request = {.method = "/test.v1.Test/Echo"}, .channel = channel};
  probe_run(&harness, &after); /* the old one is not for the new server */
  ck_assert_int_eq(after.grpc_status, 14);
  ck_assert_ptr_null(strstr(after.err.message, directory));
  harness_on_core(&harness, opening_connect, &opening);
  struct probe again = {.request = {.method = "/test.v1.Test/Echo"}, .channel = opening.channel};
  probe_run(&harness, &again);
  ck_assert_int_eq(again.grpc_status, 0);
  server_kill(second);
  buf_free(&ready.data);
  buf_free(&again.data);
  unlink(path);
  base_free(path);
  path = base_asprintf("%s/other.sock.lock", directory);
  unlink(path);
  base_free(path);
  rmdir(directory);
  core_rpc_loop_stop(harness.loop, 100);
  pthread_join(harness.thread, NULL);
  core_rpc_channel_close(&channel);
  core_rpc_channel_close(&opening.channel);
  core_rpc_loop_free(&harness.loop);
  harness_remove_directory(&harness);
}
END_TEST

TEST_MAIN("core_rpc.listen", the_socket_file_is_private_and_goes_away_at_stop,
          a_path_is_served_once_and_what_is_no_socket_is_left_alone,
          a_stale_socket_is_replaced_and_a_closed_path_can_be_served_again, who_sees_a_socket_can_connect_to_it,
          the_owner_of_a_socket_hears_of_each_connection_and_of_its_end, no_descriptor_leaks_over_many_connections,
          a_channel_lives_as_long_as_its_server_and_fails_its_calls_at_once_when_that_is_killed)

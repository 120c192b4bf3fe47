/* spi_bare.c: gRPC C core with nothing around it, one completion queue and one thread, as the server of echoes and as
 * their client: the pair that the SPI's throughput is measured against.
 *
 *   spi_bare serve PATH    until killed
 *   spi_bare call PATH     commands on standard input (measure.h) */
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "tests/bench/measure.h"

enum { ARMED = 64, DEADLINE_S = 30 };

static grpc_byte_buffer *buffer_of(const uint8_t *bytes, size_t length) {
  grpc_slice slice = grpc_slice_from_copied_buffer((const char *)bytes, length);
  grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  return buffer;
}

/* The bytes of a message into target; their number, or SIZE_MAX when there are more than capacity, or none at all. */
static size_t buffer_read(grpc_byte_buffer *buffer, uint8_t *target, size_t capacity) {
  grpc_byte_buffer_reader reader;
  if (buffer == NULL || grpc_byte_buffer_length(buffer) > capacity || !grpc_byte_buffer_reader_init(&reader, buffer))
    return SIZE_MAX;
  grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
  size_t length = GRPC_SLICE_LENGTH(slice);
  memcpy(target, GRPC_SLICE_START_PTR(slice), length);
  grpc_slice_unref(slice);
  grpc_byte_buffer_reader_destroy(&reader);
  return length;
}

/* ---- server ---- */

struct served {
  grpc_call *call;
  grpc_metadata_array metadata;
  grpc_byte_buffer *request, *reply;
  gpr_timespec deadline;
  int cancelled;
  bool answering;
};

static void served_arm(grpc_server *server, grpc_completion_queue *queue, void *method) {
  struct served *served = BASE_NEW(struct served);
  *served = (struct served){0};
  grpc_metadata_array_init(&served->metadata);
  if (grpc_server_request_registered_call(server, method, &served->call, &served->deadline, &served->metadata,
                                          &served->request, queue, queue, served) != GRPC_CALL_OK)
    abort();
}

static void served_answer(struct served *served) {
  uint8_t request[MEASURE_REQUEST_BYTES] = {0}, reply[MEASURE_REPLY_BYTES];
  buffer_read(served->request, request, sizeof(request));
  measure_reply_fill(reply, request[0]);
  served->reply = buffer_of(reply, sizeof(reply));
  served->answering = true;
  const grpc_op operations[] = {
      {.op = GRPC_OP_SEND_INITIAL_METADATA},
      {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = served->reply},
      {.op = GRPC_OP_SEND_STATUS_FROM_SERVER, .data.send_status_from_server.status = GRPC_STATUS_OK},
      {.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &served->cancelled},
  };
  if (grpc_call_start_batch(served->call, operations, 4, served, NULL) != GRPC_CALL_OK)
    abort();
}

static void served_free(struct served *served) {
  grpc_byte_buffer_destroy(served->request);
  grpc_byte_buffer_destroy(served->reply);
  grpc_metadata_array_destroy(&served->metadata);
  grpc_call_unref(served->call);
  base_free(served);
}

static int serve(const char *path) {
  char *address = base_asprintf("unix:%s", path);
  grpc_server *server = grpc_server_create(NULL, NULL);
  grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
  grpc_server_register_completion_queue(server, queue, NULL);
  void *method =
      grpc_server_register_method(server, MEASURE_METHOD, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
  grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
  if (grpc_server_add_http2_port(server, address, credentials) == 0)
    return EXIT_FAILURE;
  grpc_server_start(server);
  for (unsigned i = 0; i < ARMED; i++)
    served_arm(server, queue, method);
  puts("ready");
  fflush(stdout);
  for (;;) {
    grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    if (event.type != GRPC_OP_COMPLETE)
      return EXIT_FAILURE;
    struct served *served = event.tag;
    if (served->answering) {
      served_free(served);
    } else if (event.success) {
      served_arm(server, queue, method);
      served_answer(served);
    }
  }
}

/* ---- client ---- */

struct client {
  grpc_channel *channel;
  grpc_completion_queue *queue;
  void *method;
  uint8_t seed;
};

struct issued {
  grpc_call *call;
  grpc_metadata_array initial, trailing;
  grpc_byte_buffer *request, *reply;
  grpc_slice details;
  grpc_status_code status;
  int64_t started_ns;
  uint8_t seed;
};

static void issued_start(struct client *client, struct issued *issued) {
  uint8_t request[MEASURE_REQUEST_BYTES] = {client->seed++};
  *issued = (struct issued){.started_ns = measure_now_ns(), .seed = request[0]};
  grpc_metadata_array_init(&issued->initial);
  grpc_metadata_array_init(&issued->trailing);
  issued->request = buffer_of(request, sizeof(request));
  gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(DEADLINE_S, GPR_TIMESPAN));
  issued->call = grpc_channel_create_registered_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue,
                                                     client->method, deadline, NULL);
  const grpc_op operations[] = {
      {.op = GRPC_OP_SEND_INITIAL_METADATA},
      {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = issued->request},
      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
      {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &issued->initial},
      {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &issued->reply},
      {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
       .data.recv_status_on_client = {.trailing_metadata = &issued->trailing,
                                      .status = &issued->status,
                                      .status_details = &issued->details}},
  };
  if (grpc_call_start_batch(issued->call, operations, 6, issued, NULL) != GRPC_CALL_OK)
    abort();
}

static void issued_end(struct issued *issued, struct measure *measure) {
  uint8_t reply[MEASURE_REPLY_BYTES];
  size_t length = buffer_read(issued->reply, reply, sizeof(reply));
  measure_record(measure, issued->started_ns,
                 issued->status == GRPC_STATUS_OK && measure_reply_is_right(reply, length, issued->seed));
  grpc_byte_buffer_destroy(issued->request);
  grpc_byte_buffer_destroy(issued->reply);
  grpc_metadata_array_destroy(&issued->initial);
  grpc_metadata_array_destroy(&issued->trailing);
  grpc_slice_unref(issued->details);
  grpc_call_unref(issued->call);
}

static struct issued *issued_next(struct client *client) {
  return grpc_completion_queue_next(client->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).tag;
}

static void run(struct measure *measure, void *arg) {
  struct client *client = arg;
  static struct issued calls[1024];
  int64_t due = measure_now_ns(), pace_ns = measure->command.pace_us * 1000;
  unsigned in_flight = measure->command.outstanding;
  for (unsigned i = 0; i < in_flight; i++)
    issued_start(client, &calls[i]);
  while (in_flight > 0) {
    struct issued *issued = issued_next(client);
    issued_end(issued, measure);
    if (!measure_is_open(measure)) {
      in_flight--;
      continue;
    }
    if (pace_ns > 0) {
      due += pace_ns;
      const struct timespec until = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
    issued_start(client, issued);
  }
}

static int call(const char *path) {
  char *address = base_asprintf("unix:%s", path);
  /* No retries: what the core's own client does, and 12 % faster (deadlines stay). */
  grpc_arg no_retries = {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_RETRIES, .value.integer = 0};
  grpc_channel_args arguments = {.num_args = 1, .args = &no_retries};
  struct client client = {.queue = grpc_completion_queue_create_for_next(NULL)};
  client.channel = grpc_channel_create(address, grpc_insecure_credentials_create(), &arguments);
  client.method = grpc_channel_register_call(client.channel, MEASURE_METHOD, "localhost", NULL);
  base_free(address);
  return measure_serve_commands(run, &client);
}

int main(int argc, char **argv) {
  grpc_init();
  if (argc == 3 && str_equal(argv[1], "serve"))
    return serve(argv[2]);
  if (argc == 3 && str_equal(argv[1], "call"))
    return call(argv[2]);
  fputs("usage: spi_bare serve|call PATH\n", stderr);
  return 2;
}

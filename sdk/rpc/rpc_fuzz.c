/* rpc_fuzz.c: libFuzzer target for what the room parses itself: message framing in arbitrary pieces, google.rpc.Status
 * with its envelope, base64, grpc-timeout, percent encoding. Built with -DGATEHOUSE_FUZZ=ON (clang). */
#include "sdk/rpc/rpc_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_frames(const uint8_t *data, size_t size) {
  size_t offset = 0, length = 0;
  while (rpc_frame_parse(data + offset, size - offset, 4096, &length) == RPC_FRAME_COMPLETE) {
    BASE_CHECK(length <= 4096 && offset + RPC_PREFIX_BYTES + length <= size);
    offset += RPC_PREFIX_BYTES + length;
  }
}

static void fuzz_status(const uint8_t *data, size_t size) {
  struct rpc_status status, again;
  uint8_t encoded[RPC_STATUS_BYTES_MAX];
  if (!rpc_status_decode(data, size, &status) || status.code == RPC_OK)
    return;
  size_t length = rpc_status_encode(&status, encoded);
  BASE_CHECK(rpc_status_decode(encoded, length, &again) && again.code == status.code);
  BASE_CHECK(strcmp(again.error.code, status.error.code) == 0);
}

static void fuzz_text(const uint8_t *data, size_t size) {
  struct buf decoded = {0}, encoded = {0};
  int64_t timeout_us;
  char message[ERROR_MESSAGE_MAX];
  if (rpc_base64_decode(&decoded, (const char *)data, size))
    rpc_base64_encode(&encoded, (const uint8_t *)decoded.data, decoded.length);
  rpc_timeout_parse((const char *)data, size, &timeout_us);
  rpc_percent_decode(message, sizeof(message), (const char *)data, size);
  buf_free(&decoded);
  buf_free(&encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_frames(data, size);
  fuzz_status(data, size);
  fuzz_text(data, size);
  return 0;
}

/* result.c: the encoded form of a result. Every call ends with one and its texts are the biggest thing that travels;
 * nanopb alone would look for their ends twice, once to know how long the message inside the message is. Here the
 * lengths are known. */
#include <pb_encode.h>

#include "sdk/base/check.h"
#include "sdk/module/module_internal.h"

#define OVERHEAD_BYTES 96 /* tags, lengths and numbers of both messages, generously */

struct text_field {
  uint32_t tag;
  const char *data;
  size_t length;
};

static bool write_text(pb_ostream_t *stream, const struct text_field *field) {
  return field->length == 0 || (pb_encode_tag(stream, PB_WT_STRING, field->tag) &&
                                pb_encode_string(stream, (const pb_byte_t *)field->data, field->length));
}

static bool write_number(pb_ostream_t *stream, uint32_t tag, uint64_t value) {
  return value == 0 || (pb_encode_tag(stream, PB_WT_VARINT, tag) && pb_encode_varint(stream, value));
}

static bool write_result(pb_ostream_t *stream, const struct module_result *result) {
  const struct text_field texts[] = {
      {core_common_v1_InvokeResult_content_json_tag, result->content_json, result->content_bytes},
      {core_common_v1_InvokeResult_structured_content_json_tag, result->structured_json, result->structured_bytes},
  };
  bool ok = true;
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    ok = ok && write_text(stream, &texts[i]);
  return ok && write_number(stream, core_common_v1_InvokeResult_is_error_tag, result->is_error) &&
         write_number(stream, core_common_v1_InvokeResult_upstream_status_tag, result->upstream_status) &&
         write_number(stream, core_common_v1_InvokeResult_upstream_duration_us_tag, result->upstream_duration_us);
}

void module_result_encode(const struct module_result *result, struct buf *out) {
  pb_ostream_t sizing = PB_OSTREAM_SIZING;
  BASE_CHECK(write_result(&sizing, result));
  size_t room = sizing.bytes_written + OVERHEAD_BYTES;
  pb_ostream_t stream = pb_ostream_from_buffer((pb_byte_t *)buf_reserve(out, room), room);
  BASE_CHECK(pb_encode_tag(&stream, PB_WT_STRING, core_common_v1_InvokeItem_result_tag) &&
             pb_encode_varint(&stream, sizing.bytes_written) && write_result(&stream, result));
  out->length += stream.bytes_written;
  out->data[out->length] = '\0';
}

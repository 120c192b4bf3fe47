/* protobuf.h: the protobuf wire format by hand, for the few messages that this room itself speaks (status, health,
 * reflection) and for reading descriptors, so that it needs no generated code. The reader never reads outside its range
 * and stops at the first malformed byte. */
#ifndef GATEHOUSE_CORE_RPC_PROTOBUF_H
#define GATEHOUSE_CORE_RPC_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/buf.h"

void protobuf_put_number(struct buf *buf, uint32_t field, uint64_t value); /* varint; zero is left out */
void protobuf_put_bytes(struct buf *buf, uint32_t field, const void *data, size_t length);
void protobuf_put_text(struct buf *buf, uint32_t field, const char *text); /* empty is left out */

struct protobuf_reader {
  const uint8_t *data;
  size_t length;
  bool malformed;
};

struct protobuf_field {
  uint32_t number;
  bool is_bytes;       /* else `value` counts */
  uint64_t value;      /* varint, fixed32 or fixed64 */
  const uint8_t *data; /* length-delimited; points into the message */
  size_t length;
};

/* The next field; false at the end or when malformed. */
bool protobuf_next(struct protobuf_reader *reader, struct protobuf_field *field);
/* The last length-delimited field of this number; false when absent or the message is malformed. */
bool protobuf_find_bytes(const void *data, size_t length, uint32_t number, struct protobuf_field *field);

#endif

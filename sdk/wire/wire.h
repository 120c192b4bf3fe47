/* wire.h: nanopb messages for modules, the CLI and the kit; and the descriptor set of proto/.
 *
 * Generated structs: #include "wire/nano/core/spi/auth/v1/auth.pb.h". Strings, bytes, repeated fields and sub-messages
 * are pointers on the heap (NULL: absent), owned by the message; scalars and enums are values. Fields named *_json are
 * C strings here although `bytes` in the contract; other bytes fields end at WIRE_BYTES_MAX. Only supervisor/control/v1
 * has fixed arrays and needs no wire_release. Generated messages never nest without bound (a contract test says so), so
 * a hostile message cannot exhaust the stack. Any thread; a message has one owner. */
#ifndef GATEHOUSE_WIRE_H
#define GATEHOUSE_WIRE_H

#include <pb.h>
#include <stdbool.h>
#include <stddef.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/error.h"

/* What one `bytes` field can hold: Debian's nanopb counts in 16 bits. The same bound holds for items of a repeated
 * field. */
#define WIRE_BYTES_MAX ((size_t)PB_SIZE_MAX)

/* Appends the encoded message to *out. Error: ERR_INTERNAL when the struct cannot be encoded (a static string without
 * NUL, a count beyond its array); *out is then as before. */
bool wire_encode(const pb_msgdesc_t *fields, const void *message, struct buf *out, struct error *err);

/* Decodes data[0..length) into *message, which need not be initialised: every field is set. data may be NULL when
 * length is 0. Errors: ERR_RPC_MESSAGE_MALFORMED (also a field beyond its bound); nothing is left allocated then. The
 * owner calls wire_release. */
bool wire_decode(const pb_msgdesc_t *fields, void *message, const void *data, size_t length, struct error *err);

/* Frees what the fields own, and clears them; not the struct itself. Fine to call twice, or on a zeroed struct. */
void wire_release(const pb_msgdesc_t *fields, void *message);

/* Field values; the message owns them. NULL text gives NULL (absent). */
char *wire_string(const char *text);
char *wire_string_n(const char *text, size_t length);

/* NULL when length is above WIRE_BYTES_MAX: the caller refuses the value. length 0 gives an empty, present value. */
pb_bytes_array_t *wire_bytes(const void *data, size_t length);

/* Content of a string field; "" when absent. */
static inline const char *wire_text(const char *field) {
  return field ? field : "";
}

/* A zeroed sub-message: request.trace = WIRE_NEW(core_common_v1_TraceContext); */
#define WIRE_NEW(type) BASE_NEW(type)

/* Grows a repeated field by one zeroed item and answers its address, NULL when it is full (65535 items):
 *   core_common_v1_Header *header = WIRE_ADD(message.headers, message.headers_count); */
#define WIRE_ADD(array, count) ((__typeof__(array))wire_array_add((void **)&(array), &(count), sizeof(*(array))))
void *wire_array_add(void **array, pb_size_t *count, size_t item_bytes);

/* The serialized google.protobuf.FileDescriptorSet of proto/ with imports and comments; static memory. */
const unsigned char *wire_descriptor_set(size_t *length);

#endif

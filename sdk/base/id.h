/* id.h: random identifiers from the system's generator. Any thread. A failing generator aborts the process. */
#ifndef GATEHOUSE_BASE_ID_H
#define GATEHOUSE_BASE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ID_UUID_BYTES 37     /* as text, with its NUL */
#define ID_UUID_RAW_BYTES 16 /* as the number that it is */

void id_random_bytes(void *target, size_t size_bytes);
uint64_t id_random_u64(void);
void id_uuid_v4(char target[static ID_UUID_BYTES]); /* lower case, RFC 9562 version 4 */
bool id_is_uuid_v4(const char *text);
/* 8-4-4-4-12 hexadecimal digits, any case, any version. */
bool id_uuid_parse(const char *text, size_t length, uint8_t target[static ID_UUID_RAW_BYTES]);
void id_uuid_format(const uint8_t id[static ID_UUID_RAW_BYTES], char target[static ID_UUID_BYTES]); /* lower case */
void id_random_hex(char *target, size_t byte_count); /* target: 2*byte_count+1 */
/* Random bytes for identifiers that name something and open nothing: one call of the system's generator for many of
 * them. Zeroed at first; one owner, one thread. Not for secrets, and not to be used on both sides of a fork. */
struct id_pool {
  uint8_t bytes[1024];
  size_t left;
};
void id_pool_take(struct id_pool *pool, void *target, size_t size_bytes); /* at most sizeof(pool->bytes) */
void id_pool_uuid_v4(struct id_pool *pool, char target[static ID_UUID_BYTES]);
/* A token of 32 random bytes, "<prefix>_<43 base64url characters>"; caller frees with base_free. */
char *id_token(const char *prefix);

#endif

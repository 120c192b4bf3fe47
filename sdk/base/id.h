/* id.h: random identifiers from the system's generator. Any thread. A failing generator aborts the process. */
#ifndef GATEHOUSE_BASE_ID_H
#define GATEHOUSE_BASE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ID_UUID_BYTES 37

void id_random_bytes(void *target, size_t size_bytes);
uint64_t id_random_u64(void);
void id_uuid_v4(char target[static ID_UUID_BYTES]); /* lower case, RFC 9562 version 4 */
bool id_is_uuid_v4(const char *text);
void id_random_hex(char *target, size_t byte_count); /* target: 2*byte_count+1 */
/* A token of 32 random bytes, "<prefix>_<43 base64url characters>"; caller frees with base_free. */
char *id_token(const char *prefix);

#endif

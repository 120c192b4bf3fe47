/* chain.c: reading and checking an audit chain.
 *
 * A chain file is JSON lines. A line ends in ,"hash":"<64 hex digits>"} and a newline, where the hash is the SHA-256 of
 * everything before that comma. It holds "sequence", one more than the line before, and "previous", the hash of the
 * line before (of the last line of the file before it, when the file was put aside; 64 zeros at the very beginning). So
 * a line that was changed, taken out, put in or moved breaks the chain at its place. Bytes behind the last newline are
 * what a crash left of a line that was being written. */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/observe/observe_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

#define TAIL_OPEN ",\"hash\":\""
#define TAIL_CLOSE "\"}"
#define TAIL_BYTES (sizeof(TAIL_OPEN) - 1 + OBSERVE_HASH_HEX + sizeof(TAIL_CLOSE) - 1)

void observe_chain_hash(const void *data, size_t length, char hash_hex[static OBSERVE_HASH_HEX + 1]) {
  uint8_t hash[EVP_MAX_MD_SIZE];
  unsigned hash_length = 0;
  BASE_CHECK(EVP_Digest(data, length, hash, &hash_length, EVP_sha256(), NULL) == 1);
  str_hex_encode(hash_hex, hash, hash_length);
}

/* A member of the line as text; "" when absent or too long. */
static void member_read(const char *line, size_t length, const char *key, char *target, size_t target_bytes) {
  const char *value;
  size_t value_length;
  target[0] = 0;
  if (!json_member(line, length, key, &value, &value_length))
    return;
  if (value_length >= 2 && *value == '"') {
    value++;
    value_length -= 2;
  }
  if (value_length < target_bytes) {
    memcpy(target, value, value_length);
    target[value_length] = 0;
  }
}

/* length without the newline. */
static bool line_check(const char *line, size_t length, struct observe_chain *chain) {
  char hash[OBSERVE_HASH_HEX + 1], previous[OBSERVE_HASH_HEX + 1], sequence_text[24];
  uint64_t sequence;
  if (length <= TAIL_BYTES || !json_check(line, length, JSON_DEPTH_MAX, NULL))
    return false;
  const char *tail = line + length - TAIL_BYTES;
  observe_chain_hash(line, length - TAIL_BYTES, hash);
  if (memcmp(tail, TAIL_OPEN, sizeof(TAIL_OPEN) - 1) != 0 ||
      memcmp(tail + sizeof(TAIL_OPEN) - 1, hash, OBSERVE_HASH_HEX) != 0 ||
      memcmp(tail + TAIL_BYTES - 2, TAIL_CLOSE, 2) != 0)
    return false;
  member_read(line, length, "sequence", sequence_text, sizeof(sequence_text));
  member_read(line, length, "previous", previous, sizeof(previous));
  if (!str_parse_u64(sequence_text, &sequence) || strlen(previous) != OBSERVE_HASH_HEX)
    return false;
  if (chain->lines && (sequence != chain->last_sequence + 1 || !str_equal(previous, chain->last_hash)))
    return false;
  chain->last_sequence = sequence;
  str_copy(chain->last_hash, sizeof(chain->last_hash), hash);
  return true;
}

bool observe_chain_read(const char *path, struct observe_chain *chain, struct error *err) {
  char *line = NULL;
  size_t capacity = 0;
  bool good = true;
  *chain = (struct observe_chain){0};
  FILE *file = fopen(path, "re");
  if (!file)
    return error_set(err, ERR_NOT_FOUND, "The audit log cannot be opened.");
  for (ssize_t length; good && (length = getline(&line, &capacity, file)) > 0;) {
    if (line[length - 1] != '\n') {
      chain->torn_bytes = (uint64_t)length;
      break;
    }
    good = line_check(line, (size_t)length - 1, chain);
    if (!good) {
      error_set(err, ERR_STORE_CORRUPT, "The audit log was altered: line %llu does not continue the chain.",
                (unsigned long long)chain->lines + 1);
      break;
    }
    chain->lines++;
    chain->good_bytes += (uint64_t)length;
  }
  if (good && ferror(file))
    good = error_set(err, ERR_IO, "The audit log cannot be read.");
  free(line);
  fclose(file);
  return good;
}

bool observe_audit_verify(const char *path, uint64_t *line_count, struct error *err) {
  struct observe_chain chain;
  bool good = observe_chain_read(path, &chain, err);
  if (line_count)
    *line_count = chain.lines;
  if (good && chain.torn_bytes)
    return error_set(err, ERR_STORE_CORRUPT, "The audit log ends in a torn line: line %llu.",
                     (unsigned long long)chain.lines + 1);
  return good;
}

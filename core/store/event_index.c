/* event_index.c: which events may have this id, trace or context, at a bounded cost per event.
 *
 * Event ids are random, so a b-tree over them dirties one page per event: at 64 events a commit that costs six times
 * the events themselves (docs/store.md has the measurement). Instead, as in a log-structured tree with one level:
 *   - the tail: keyed hashes of the newest events, in memory, an open chain table for ids;
 *   - segments: every 32768 events the tail is sealed: its (hash, seq) pairs, partitioned into 64 buckets by the top
 * bits of the hash, are written as 64 sequential rows, beside a Bloom filter that stays in memory (about 2 bytes an
 * event). Everything here is derived from the log and can be rebuilt from it. A hash is only a hint: whoever asks reads
 * the event and compares. Hashes are keyed with a per-store salt, so a peer cannot aim for collisions.
 *
 * The tail is stored as well, 1024 events a row, in the groups that fill it: a start reads 24 bytes an event and not
 * the events. Hashes of a tail that is not stored yet come from the log.
 *
 * Any thread: one lock inside, held for memory work only, taken last. */
#include <endian.h>
#include <string.h>

#include "core/store/store_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

#define CHAIN_END UINT32_MAX
#define FILTER_WORDS 8         /* words in a block */
#define FILTER_BITS_PER_KEY 14 /* about 0.3 % false answers */

struct event_index {
  uint8_t salt[EVENT_INDEX_SALT_BYTES];
  pthread_mutex_t lock;
  /* Tail entry i is event tail_first + i. */
  uint64_t tail_first;
  struct event_index_hashes *tail;
  uint32_t *chain; /* next older entry with the same slot */
  size_t tail_count, tail_capacity;
  uint32_t *slots;
  size_t slot_count; /* a power of two */
  struct event_index_segment *segments;
  size_t segment_count;
};

uint64_t event_index_hash(const struct event_index *index, enum event_index_kind kind, const void *data,
                          size_t length) {
  uint8_t key[SIPHASH_KEY_BYTES];
  memcpy(key, index->salt, sizeof(key));
  key[8] ^= (uint8_t)kind; /* the same text as trace and as context hashes differently */
  uint64_t hash = siphash_64(key, data, length);
  return hash ? hash : 1; /* 0 says "none" */
}

struct event_index_hashes event_index_hashes(const struct event_index *index,
                                             const uint8_t id[static ID_UUID_RAW_BYTES], const char *trace_id,
                                             const char *context_id) {
  return (struct event_index_hashes){
      .id = event_index_hash(index, EVENT_INDEX_ID, id, ID_UUID_RAW_BYTES),
      .trace = *trace_id ? event_index_hash(index, EVENT_INDEX_TRACE, trace_id, strlen(trace_id)) : 0,
      .context = *context_id ? event_index_hash(index, EVENT_INDEX_CONTEXT, context_id, strlen(context_id)) : 0,
  };
}

struct event_index *event_index_create(const uint8_t salt[static EVENT_INDEX_SALT_BYTES]) {
  struct event_index *index = BASE_NEW(struct event_index);
  memcpy(index->salt, salt, EVENT_INDEX_SALT_BYTES);
  index->tail_first = 1;
  BASE_CHECK(pthread_mutex_init(&index->lock, NULL) == 0);
  return index;
}

void event_index_free(struct event_index **index_pointer) {
  struct event_index *index = BASE_TAKE(*index_pointer);
  if (!index)
    return;
  for (size_t i = 0; i < index->segment_count; i++)
    base_free(index->segments[i].filter);
  base_free(index->segments);
  base_free(index->tail);
  base_free(index->chain);
  base_free(index->slots);
  pthread_mutex_destroy(&index->lock);
  base_free(index);
}

static inline uint32_t *slot_of(struct event_index *index, uint64_t hash) {
  return &index->slots[hash & (index->slot_count - 1)];
}

static inline void slot_enter(struct event_index *index, size_t entry) {
  uint32_t *slot = slot_of(index, index->tail[entry].id);
  index->chain[entry] = *slot;
  *slot = (uint32_t)entry;
}

static void slots_rebuild(struct event_index *index) {
  memset(index->slots, 0xff, index->slot_count * sizeof(*index->slots));
  for (size_t i = 0; i < index->tail_count; i++)
    slot_enter(index, i);
}

static void tail_grow(struct event_index *index, size_t wanted) {
  size_t capacity = index->tail_capacity ? index->tail_capacity : 1024;
  while (capacity < wanted)
    capacity *= 2;
  BASE_CHECK(capacity < CHAIN_END);
  index->tail = base_realloc_array(index->tail, capacity, sizeof(*index->tail));
  index->chain = base_realloc_array(index->chain, capacity, sizeof(*index->chain));
  index->slots = base_realloc_array(index->slots, capacity, sizeof(*index->slots));
  index->tail_capacity = index->slot_count = capacity;
  slots_rebuild(index);
}

void event_index_append(struct event_index *index, uint64_t seq, const struct event_index_hashes *hashes) {
  pthread_mutex_lock(&index->lock);
  BASE_CHECK(seq == index->tail_first + index->tail_count);
  if (index->tail_count == index->tail_capacity)
    tail_grow(index, index->tail_count + 1);
  size_t entry = index->tail_count++;
  index->tail[entry] = *hashes;
  slot_enter(index, entry);
  pthread_mutex_unlock(&index->lock);
}

void event_index_truncate(struct event_index *index, uint64_t last_seq) {
  pthread_mutex_lock(&index->lock);
  while (index->tail_count && index->tail_first + index->tail_count - 1 > last_seq) {
    size_t entry = --index->tail_count; /* newest first: it heads its chain */
    *slot_of(index, index->tail[entry].id) = index->chain[entry];
  }
  pthread_mutex_unlock(&index->lock);
}

size_t event_index_tail_count(struct event_index *index) {
  pthread_mutex_lock(&index->lock);
  size_t count = index->tail_count;
  pthread_mutex_unlock(&index->lock);
  return count;
}

uint64_t event_index_last_seq(struct event_index *index) {
  pthread_mutex_lock(&index->lock);
  uint64_t seq = index->tail_first + index->tail_count - 1;
  pthread_mutex_unlock(&index->lock);
  return seq;
}

void event_index_tail_save(struct event_index *index, uint64_t first_seq, size_t count, uint8_t *target) {
  pthread_mutex_lock(&index->lock);
  BASE_CHECK(first_seq >= index->tail_first && first_seq + count <= index->tail_first + index->tail_count);
  for (const struct event_index_hashes *entry = index->tail + (first_seq - index->tail_first); count > 0;
       count--, entry++, target += EVENT_INDEX_SAVED_BYTES) {
    const uint64_t words[EVENT_INDEX_KINDS] = {htole64(entry->id), htole64(entry->trace), htole64(entry->context)};
    memcpy(target, words, sizeof(words));
  }
  pthread_mutex_unlock(&index->lock);
}

void event_index_tail_load(struct event_index *index, const uint8_t *saved, size_t count) {
  pthread_mutex_lock(&index->lock);
  if (index->tail_count + count > index->tail_capacity)
    tail_grow(index, index->tail_count + count);
  for (; count > 0; count--, saved += EVENT_INDEX_SAVED_BYTES) {
    uint64_t words[EVENT_INDEX_KINDS];
    memcpy(words, saved, sizeof(words));
    size_t entry = index->tail_count++;
    index->tail[entry] =
        (struct event_index_hashes){.id = le64toh(words[0]), .trace = le64toh(words[1]), .context = le64toh(words[2])};
    slot_enter(index, entry);
  }
  pthread_mutex_unlock(&index->lock);
}

uint64_t event_index_sealed_seq(struct event_index *index) {
  pthread_mutex_lock(&index->lock);
  uint64_t seq = index->tail_first - 1;
  pthread_mutex_unlock(&index->lock);
  return seq;
}

/* ---- filters ---- */

static const uint32_t filter_salts[FILTER_WORDS] = {0x47b6137bu, 0x44974d91u, 0x8824ad5bu, 0xa2b7289du,
                                                    0x705495c7u, 0x2df1424bu, 0x9efc4947u, 0x5c6bfb31u};

static inline size_t filter_block(uint64_t hash, size_t blocks) {
  return (size_t)((hash >> 32) * blocks >> 32);
}

static void filter_add(struct event_index_segment *segment, uint64_t hash) {
  uint32_t *block = segment->filter + filter_block(hash, segment->filter_blocks) * FILTER_WORDS;
  for (int i = 0; i < FILTER_WORDS; i++)
    block[i] |= 1u << ((uint32_t)hash * filter_salts[i] >> 27);
}

static bool filter_may_have(const struct event_index_segment *segment, uint64_t hash) {
  const uint32_t *block = segment->filter + filter_block(hash, segment->filter_blocks) * FILTER_WORDS;
  for (int i = 0; i < FILTER_WORDS; i++)
    if (!(block[i] >> ((uint32_t)hash * filter_salts[i] >> 27) & 1))
      return false;
  return true;
}

/* ---- finding ---- */

static void candidate_add(uint64_t **list, size_t *count, uint64_t value) {
  if ((*count & (*count - 1)) == 0) /* grow at powers of two */
    *list = base_realloc_array(*list, *count ? *count * 2 : 1, sizeof(**list));
  (*list)[(*count)++] = value;
}

static void tail_find(struct event_index *index, enum event_index_kind kind, uint64_t hash,
                      struct event_index_candidates *found) {
  if (kind == EVENT_INDEX_ID) {
    if (!index->slot_count)
      return;
    for (uint32_t i = *slot_of(index, hash); i != CHAIN_END; i = index->chain[i])
      if (index->tail[i].id == hash)
        candidate_add(&found->seqs, &found->seq_count, index->tail_first + i);
    for (size_t i = 0, j = found->seq_count; i + 1 < j; i++, j--) { /* chains run from new to old */
      uint64_t swapped = found->seqs[i];
      found->seqs[i] = found->seqs[j - 1];
      found->seqs[j - 1] = swapped;
    }
    return;
  }
  for (size_t i = 0; i < index->tail_count; i++)
    if ((kind == EVENT_INDEX_TRACE ? index->tail[i].trace : index->tail[i].context) == hash)
      candidate_add(&found->seqs, &found->seq_count, index->tail_first + i);
}

void event_index_find(struct event_index *index, enum event_index_kind kind, uint64_t hash, bool tail_only,
                      struct event_index_candidates *candidates) {
  *candidates = (struct event_index_candidates){0};
  pthread_mutex_lock(&index->lock);
  tail_find(index, kind, hash, candidates);
  for (size_t i = 0; i < index->segment_count && !tail_only; i++)
    if (filter_may_have(&index->segments[i], hash))
      candidate_add(&candidates->segments, &candidates->segment_count, index->segments[i].first_seq);
  pthread_mutex_unlock(&index->lock);
}

void event_index_candidates_free(struct event_index_candidates *candidates) {
  base_free(candidates->seqs);
  base_free(candidates->segments);
  *candidates = (struct event_index_candidates){0};
}

unsigned event_index_bucket(uint64_t hash) {
  return (unsigned)(hash >> 58);
}

void event_index_bucket_find(const uint8_t *bucket, size_t length, uint64_t first_seq, uint64_t hash,
                             struct event_index_candidates *candidates) {
  for (size_t at = 0; at + EVENT_INDEX_ENTRY_BYTES <= length; at += EVENT_INDEX_ENTRY_BYTES) {
    uint64_t entry_hash;
    uint32_t distance;
    memcpy(&entry_hash, bucket + at, sizeof(entry_hash));
    if (le64toh(entry_hash) != hash)
      continue;
    memcpy(&distance, bucket + at + sizeof(entry_hash), sizeof(distance));
    candidate_add(&candidates->seqs, &candidates->seq_count, first_seq + le32toh(distance));
  }
}

/* ---- sealing ---- */

/* The three hashes of an entry as a list; consecutive events of one trace count once, which sizes the filter well. */
static size_t entry_keys(const struct event_index_hashes *entry, uint64_t keys[static EVENT_INDEX_KINDS]) {
  size_t count = 0;
  keys[count++] = entry->id;
  if (entry->trace)
    keys[count++] = entry->trace;
  if (entry->context)
    keys[count++] = entry->context;
  return count;
}

static size_t tail_filter_keys(const struct event_index *index, size_t event_count) {
  size_t keys = 0;
  for (size_t i = 0; i < event_count; i++) {
    const struct event_index_hashes *entry = &index->tail[i], *before = i ? entry - 1 : NULL;
    keys += 1u + (entry->trace && (!before || before->trace != entry->trace)) +
            (entry->context && (!before || before->context != entry->context));
  }
  return keys;
}

bool event_index_seal(struct event_index *index, size_t event_count, struct event_index_sealing *sealing) {
  memset(sealing, 0, sizeof(*sealing));
  pthread_mutex_lock(&index->lock);
  bool ready = event_count > 0 && index->tail_count >= event_count;
  uint64_t keys[EVENT_INDEX_KINDS];
  if (!ready)
    goto out;
  struct event_index_segment *segment = &sealing->segment;
  segment->first_seq = index->tail_first;
  segment->last_seq = index->tail_first + event_count - 1;
  size_t filter_bits = tail_filter_keys(index, event_count) * FILTER_BITS_PER_KEY;
  segment->filter_blocks = filter_bits / (FILTER_WORDS * 32) + 1;
  segment->filter = base_calloc(segment->filter_blocks * FILTER_WORDS, sizeof(uint32_t));
  for (size_t i = 0; i < event_count; i++)
    for (size_t k = entry_keys(&index->tail[i], keys); k-- > 0;)
      sealing->bucket_bytes[event_index_bucket(keys[k])] += EVENT_INDEX_ENTRY_BYTES;
  size_t filled[EVENT_INDEX_BUCKETS] = {0};
  for (size_t b = 0; b < EVENT_INDEX_BUCKETS; b++)
    sealing->buckets[b] = base_alloc(sealing->bucket_bytes[b] + 1);
  for (size_t i = 0; i < event_count; i++) {
    uint32_t distance = htole32((uint32_t)i);
    for (size_t k = entry_keys(&index->tail[i], keys); k-- > 0;) {
      unsigned bucket = event_index_bucket(keys[k]);
      uint64_t hash = htole64(keys[k]);
      memcpy(sealing->buckets[bucket] + filled[bucket], &hash, sizeof(hash));
      memcpy(sealing->buckets[bucket] + filled[bucket] + sizeof(hash), &distance, sizeof(distance));
      filled[bucket] += EVENT_INDEX_ENTRY_BYTES;
      filter_add(segment, keys[k]);
    }
  }
out:
  pthread_mutex_unlock(&index->lock);
  return ready;
}

void event_index_sealing_free(struct event_index_sealing *sealing) {
  base_free(sealing->segment.filter);
  for (size_t b = 0; b < EVENT_INDEX_BUCKETS; b++)
    base_free(sealing->buckets[b]);
  memset(sealing, 0, sizeof(*sealing));
}

void event_index_adopt(struct event_index *index, struct event_index_segment *segment) {
  pthread_mutex_lock(&index->lock);
  BASE_CHECK(segment->first_seq == index->tail_first && segment->last_seq >= segment->first_seq);
  index->segments = base_realloc_array(index->segments, index->segment_count + 1, sizeof(*index->segments));
  index->segments[index->segment_count++] = *segment;
  segment->filter = NULL;
  size_t sealed = (size_t)(segment->last_seq - segment->first_seq + 1);
  size_t dropped = sealed < index->tail_count ? sealed : index->tail_count;
  index->tail_count -= dropped;
  if (dropped)
    memmove(index->tail, index->tail + dropped, index->tail_count * sizeof(*index->tail));
  index->tail_first = segment->last_seq + 1;
  if (index->slot_count)
    slots_rebuild(index);
  pthread_mutex_unlock(&index->lock);
}

/* event_block.c: how events lie in the database: blocks of many events, one row for each, so that the cost of a row is
 * paid once for what a group brings.
 *
 * A block has two parts. "heads", one entry per event: event id (16 bytes), wall time (i64), length and CRC-32 of the
 * event's bytes (u32 each), one byte of flags, then the texts (trace, context, project, family, type), NUL behind each;
 * a text whose flag is set is that of the event before and is left out. "bytes": the events as they were given, behind
 * one another. Integers are little endian. Heads alone say everything that opening the store and looking for an event
 * need; their checksum stands beside them in the row, so what is read here is either whole or refused. */
#include <endian.h>
#include <string.h>

#include "core/store/event_block.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

#define BLOCK_BYTES (64u << 10) /* a block is full from here on: what reading one event costs at most, beside it */
#define BLOCKS_KEPT 4           /* whose memory is kept from group to group */

struct fixed_head {
  uint8_t id[ID_UUID_RAW_BYTES];
  uint64_t wall_us;
  uint32_t length, crc;
} __attribute__((packed));
_Static_assert(sizeof(struct fixed_head) == 32, "as it is on disk");

/* ---- writing ---- */

static struct event_block *block_open(struct event_blocks *blocks, uint64_t seq) {
  struct event_block *block = blocks->count ? &blocks->list[blocks->count - 1] : NULL;
  if (block && block->heads.length + block->bytes.length < BLOCK_BYTES)
    return block;
  if (blocks->count == blocks->capacity) {
    size_t capacity = blocks->capacity ? blocks->capacity * 2 : BLOCKS_KEPT;
    blocks->list = base_realloc_array(blocks->list, capacity, sizeof(*blocks->list));
    memset(blocks->list + blocks->capacity, 0, (capacity - blocks->capacity) * sizeof(*blocks->list));
    blocks->capacity = capacity;
  }
  block = &blocks->list[blocks->count++];
  buf_clear(&block->heads);
  buf_clear(&block->bytes);
  block->first_seq = seq;
  block->last_seq = seq - 1;
  return block;
}

void event_blocks_append(struct event_blocks *blocks, uint64_t seq, const uint8_t id[static ID_UUID_RAW_BYTES],
                         const struct store_event *event, uint32_t crc) {
  const char *const texts[EVENT_BLOCK_TEXTS] = {event->trace_id, event->context_id, event->project_id, event->family,
                                                event->type};
  struct event_block *block = block_open(blocks, seq);
  BASE_CHECK(seq == block->last_seq + 1 && event->length <= UINT32_MAX);
  struct fixed_head head = {
      .wall_us = htole64((uint64_t)event->wall_us), .length = htole32((uint32_t)event->length), .crc = htole32(crc)};
  memcpy(head.id, id, ID_UUID_RAW_BYTES);
  buf_append(&block->heads, &head, sizeof(head));
  size_t flags_at = block->heads.length;
  uint8_t same = 0;
  buf_append_char(&block->heads, 0);
  for (unsigned i = 0; i < EVENT_BLOCK_TEXTS; i++) {
    if (block->last_seq >= block->first_seq && strcmp(block->heads.data + block->text_at[i], texts[i]) == 0) {
      same |= (uint8_t)(1u << i);
      continue;
    }
    block->text_at[i] = block->heads.length;
    buf_append(&block->heads, texts[i], strlen(texts[i]) + 1);
  }
  block->heads.data[flags_at] = (char)same;
  buf_append(&block->bytes, event->bytes, event->length);
  block->last_seq = seq;
}

struct event_blocks_mark event_blocks_mark(const struct event_blocks *blocks) {
  struct event_blocks_mark mark = {.count = blocks->count};
  if (blocks->count) {
    const struct event_block *last = &blocks->list[blocks->count - 1];
    mark.last_seq = last->last_seq;
    mark.heads_length = last->heads.length;
    mark.bytes_length = last->bytes.length;
    memcpy(mark.text_at, last->text_at, sizeof(mark.text_at));
  }
  return mark;
}

void event_blocks_cut(struct event_blocks *blocks, const struct event_blocks_mark *mark) {
  BASE_CHECK(blocks->count >= mark->count);
  blocks->count = mark->count;
  if (!mark->count)
    return;
  struct event_block *last = &blocks->list[mark->count - 1];
  last->last_seq = mark->last_seq;
  last->heads.length = mark->heads_length;
  last->bytes.length = mark->bytes_length;
  memcpy(last->text_at, mark->text_at, sizeof(mark->text_at));
}

void event_blocks_clear(struct event_blocks *blocks) {
  for (size_t i = 0; i < blocks->capacity; i++)
    if (i >= BLOCKS_KEPT || blocks->list[i].heads.length + blocks->list[i].bytes.length > 4 * BLOCK_BYTES) {
      buf_free(&blocks->list[i].heads);
      buf_free(&blocks->list[i].bytes);
    }
  blocks->count = 0;
}

void event_blocks_free(struct event_blocks *blocks) {
  for (size_t i = 0; i < blocks->capacity; i++) {
    buf_free(&blocks->list[i].heads);
    buf_free(&blocks->list[i].bytes);
  }
  base_free(blocks->list);
  *blocks = (struct event_blocks){0};
}

/* ---- reading ---- */

void event_block_reader_set(struct event_block_reader *reader, uint64_t first_seq, uint64_t last_seq, const void *heads,
                            size_t heads_length) {
  *reader = (struct event_block_reader){
      .next_seq = first_seq, .last_seq = last_seq, .heads = heads, .heads_left = heads_length};
}

bool event_block_next(struct event_block_reader *reader, struct event_block_entry *entry) {
  struct fixed_head head;
  if (reader->next_seq > reader->last_seq || reader->heads_left <= sizeof(head))
    return false;
  memcpy(&head, reader->heads, sizeof(head));
  uint8_t same = reader->heads[sizeof(head)];
  const uint8_t *at = reader->heads + sizeof(head) + 1, *end = reader->heads + reader->heads_left;
  for (unsigned i = 0; i < EVENT_BLOCK_TEXTS; i++) {
    if (!(same >> i & 1)) {
      const uint8_t *nul = memchr(at, 0, (size_t)(end - at));
      if (!nul)
        return false;
      reader->texts[i] = (const char *)at;
      at = nul + 1;
    } else if (!reader->texts[i]) {
      return false;
    }
  }
  *entry = (struct event_block_entry){
      .id = reader->heads,
      .crc = le32toh(head.crc),
      .offset = reader->offset,
      .same_trace_and_context = (same & 3) == 3,
      .event = {.seq = reader->next_seq,
                .trace_id = reader->texts[0],
                .context_id = reader->texts[1],
                .project_id = reader->texts[2],
                .family = reader->texts[3],
                .type = reader->texts[4],
                .wall_us = (int64_t)le64toh(head.wall_us),
                .length = le32toh(head.length)},
  };
  reader->next_seq++;
  reader->offset += entry->event.length;
  reader->heads = at;
  reader->heads_left = (size_t)(end - at);
  return reader->next_seq <= reader->last_seq || reader->heads_left == 0;
}

/* event_block.h: blocks of events (event_block.c), for the back ends that keep them on disk. */
#ifndef GATEHOUSE_CORE_STORE_EVENT_BLOCK_H
#define GATEHOUSE_CORE_STORE_EVENT_BLOCK_H

#include "core/store/store_internal.h"
#include "sdk/base/buf.h"

#define EVENT_BLOCK_TEXTS 5 /* trace, context, project, family, type */

struct event_block {
  uint64_t first_seq, last_seq;
  struct buf heads, bytes;
  size_t text_at[EVENT_BLOCK_TEXTS]; /* in heads: the texts of the last event */
};

/* What one group appends; in order, without gaps. Zeroed at first. */
struct event_blocks {
  struct event_block *list;
  size_t count, capacity;
};

/* seq follows that of the event before. */
void event_blocks_append(struct event_blocks *blocks, uint64_t seq, const uint8_t id[static ID_UUID_RAW_BYTES],
                         const struct store_event *event, uint32_t crc);
/* A place to come back to: what was appended since is forgotten by the cut. */
struct event_blocks_mark {
  size_t count, heads_length, bytes_length, text_at[EVENT_BLOCK_TEXTS];
  uint64_t last_seq;
};
struct event_blocks_mark event_blocks_mark(const struct event_blocks *blocks);
void event_blocks_cut(struct event_blocks *blocks, const struct event_blocks_mark *mark);
void event_blocks_clear(struct event_blocks *blocks); /* keeps some memory */
void event_blocks_free(struct event_blocks *blocks);

/* Reads the heads of one block. */
struct event_block_reader {
  uint64_t next_seq, last_seq;
  const uint8_t *heads;
  size_t heads_left, offset;
  const char *texts[EVENT_BLOCK_TEXTS];
};
struct event_block_entry {
  struct store_event event; /* without event_id and bytes */
  const uint8_t *id;
  uint32_t crc;                /* of its bytes */
  size_t offset;               /* of them, in the bytes of the block */
  bool same_trace_and_context; /* as the event before in the block */
};
void event_block_reader_set(struct event_block_reader *reader, uint64_t first_seq, uint64_t last_seq, const void *heads,
                            size_t heads_length);
/* The next event; the entry points into the heads. False: there is none, or the heads are damaged. */
bool event_block_next(struct event_block_reader *reader, struct event_block_entry *entry);

#endif

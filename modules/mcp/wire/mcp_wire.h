/* mcp_wire.h: MCP messages as bytes (protocols.md 1.2 to 1.8): reading a JSON-RPC envelope without a tree, choosing the
 * era of a request, checking `_meta` and the mirrored headers, Host and Origin, and writing answers.
 *
 * Slices are raw JSON tokens inside the buffer that was parsed, forwarded byte for byte; nothing here keeps them. No
 * I/O and no state; any thread. Hostile bytes end in an enum mcp_fault, never in anything else. */
#ifndef GATEHOUSE_MCP_WIRE_H
#define GATEHOUSE_MCP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/buf.h"
#include "sdk/base/error.h"

/* ---- tables ---- */

enum mcp_era { MCP_ERA_LEGACY = 1, MCP_ERA_MODERN = 2 };

/* Revisions in order: a later one compares greater. */
enum mcp_version {
  MCP_VERSION_NONE = 0,
#define MCP_VERSION(name, text, era) MCP_VERSION_##name,
#include "modules/mcp/wire/versions.def"
#undef MCP_VERSION
  MCP_VERSION_COUNT
};
#define MCP_VERSION_LEGACY_NEWEST MCP_VERSION_2025_11_25
#define MCP_VERSION_MODERN_NEWEST MCP_VERSION_2026_07_28

enum mcp_version mcp_version_find(const char *text); /* MCP_VERSION_NONE: not served; text may be NULL */
const char *mcp_version_text(enum mcp_version version);
enum mcp_era mcp_version_era(enum mcp_version version);

enum mcp_method {
  MCP_METHOD_UNKNOWN = 0,
#define MCP_METHOD(name, text, form, eras, served) MCP_METHOD_##name,
#include "modules/mcp/wire/methods.def"
#undef MCP_METHOD
  MCP_METHOD_COUNT
};

const char *mcp_method_text(enum mcp_method method);
/* Whether a request of this method is answered in this era by anything but "method not found". */
bool mcp_method_is_served(enum mcp_method method, enum mcp_era era);

enum mcp_fault {
  MCP_FAULT_NONE = 0,
#define MCP_FAULT(name, code, legacy_status, modern_status, error_code, message) MCP_FAULT_##name,
#include "modules/mcp/wire/faults.def"
#undef MCP_FAULT
  MCP_FAULT_COUNT
};

/* ---- reading ---- */

struct mcp_slice {
  const char *data;
  size_t length; /* 0: absent */
};

static inline bool mcp_slice_is(struct mcp_slice slice, char first) {
  return slice.length > 0 && slice.data[0] == first;
}
/* Whether a key or string token reads as text; escapes are understood. */
bool mcp_token_equals(const char *token, size_t token_length, const char *text);
/* A JSON integer without fraction or exponent. */
bool mcp_token_is_integer(struct mcp_slice token);
/* Two ids or progress tokens mean the same: numbers by their text, strings decoded. */
bool mcp_token_same(struct mcp_slice a, struct mcp_slice b);
/* An owned C string of a string token, NULL when it is none or holds U+0000. Free with base_free. */
char *mcp_token_text(struct mcp_slice token);
/* The member of an object that was checked; absent: length 0. */
struct mcp_slice mcp_object_member(struct mcp_slice object, const char *key);

/* `_meta` of a request. */
struct mcp_meta {
  struct mcp_slice object;
  struct mcp_slice protocol_version, client_capabilities, log_level;
  struct mcp_slice progress_token;
  struct mcp_slice traceparent, tracestate, baggage;
};

enum mcp_message_kind { MCP_MESSAGE_REQUEST, MCP_MESSAGE_NOTIFICATION, MCP_MESSAGE_RESPONSE };

struct mcp_message {
  enum mcp_message_kind kind;
  enum mcp_method method;
  struct mcp_slice id; /* also set, where it could be read, when parsing fails: the answer names it */
  struct mcp_slice method_token;
  struct mcp_slice params;
  struct mcp_slice name, uri, arguments, cursor, protocol_version, request_id; /* members of params */
  struct mcp_slice result, error;                                              /* of a response */
  struct mcp_meta meta;
};

#define MCP_BATCH_MAX 50
#define MCP_ID_BYTES_MAX 256

/* A whole body: MCP_FAULT_NONE when it is one JSON object, or an array (*batch is then true) of 1 to MCP_BATCH_MAX
 * items. Strict JSON, at most JSON_DEPTH_MAX deep. */
enum mcp_fault mcp_body_check(const char *data, size_t length, bool *batch);

/* One message of a checked body. MCP_FAULT_INVALID_REQUEST: no JSON-RPC 2.0 message, wrong id, a member twice;
 * MCP_FAULT_INVALID_PARAMS: params, or what MCP's method demands of them, have the wrong type. */
enum mcp_fault mcp_message_parse(const char *data, size_t length, struct mcp_message *message);

/* ---- era ---- */

/* What HTTP said; NULL: absent. */
struct mcp_headers {
  const char *protocol_version, *method, *name;
  bool repeated; /* one of the three came more than once */
};

struct mcp_selection {
  enum mcp_era era;
  enum mcp_version version; /* of the request; MCP_VERSION_NONE in the legacy era: the session's */
};

/* Chooses the era (1.2) and, in the modern one, makes every check of 1.3 and 1.4. out is always filled as far as known,
 * so that a fault can be answered in its form. */
enum mcp_fault mcp_era_select(const struct mcp_message *message, const struct mcp_headers *headers,
                              struct mcp_selection *out);

/* Whether a mirrored header says what the string token says: plain, or as =?base64?…?=. */
bool mcp_header_matches(const char *header, struct mcp_slice token);

/* Whether Mcp-Param-* headers say what the arguments say, for a tool whose definition mirrors some (x-mcp-header). get
 * answers a request's header, NULL when it is absent. */
typedef const char *mcp_header_get(void *arg, const char *name);
bool mcp_params_match(struct mcp_slice definition, struct mcp_slice arguments, mcp_header_get *get, void *arg);

/* ---- DNS rebinding ---- */

/* Host: present and a loopback name or address, or one of allowed ("name", "name:port" or "*"), a list ended by NULL.
 */
bool mcp_host_is_allowed(const char *host, const char *const *allowed);
/* Origin: absent (NULL), loopback, or one of allowed ("https://app.example.com" or "*"). "null" is refused. */
bool mcp_origin_is_allowed(const char *origin, const char *const *allowed);
/* Whether an Accept value (NULL: anything) takes this media type. */
bool mcp_accept_takes(const char *accept, const char *media_type);
/* Whether a Content-Type is application/json, parameters aside. */
bool mcp_content_type_is_json(const char *content_type);

/* ---- trace ---- */

#define MCP_TRACEPARENT_BYTES 56
/* A W3C traceparent of version 00 with ids that are not zero. */
bool mcp_traceparent_is_valid(const char *text);

/* ---- writing ---- */

/* What a client is told when it gets no result. */
struct mcp_problem {
  int code;            /* JSON-RPC */
  int http_status;     /* when it is the whole answer */
  const char *message; /* NULL: the error's */
  struct error error;  /* becomes error.data */
  const char *extra;   /* members for error.data, with a comma at the front; NULL: none */
};

void mcp_problem_from_fault(struct mcp_problem *problem, enum mcp_fault fault, enum mcp_era era, const char *trace_id);
/* By category (docs/mcp.md); the message is the error's. */
void mcp_problem_from_error(struct mcp_problem *problem, const struct error *err);

/* Each appends one JSON-RPC message. id of length 0: null. */
void mcp_write_error(struct buf *out, struct mcp_slice id, const struct mcp_problem *problem);
/* Opens a result with what its era demands: in the modern one resultType and `_meta` with serverInfo beside the members
 * of meta. Follow with mcp_write_member or own text of the form `,"name":…`-less members through *comma, and close. */
void mcp_write_result_open(struct buf *out, struct mcp_slice id, enum mcp_era era, struct mcp_slice meta, bool *comma);
void mcp_write_member(struct buf *out, bool *comma, const char *name, const char *value, size_t value_length);
void mcp_write_result_close(struct buf *out);

/* The name, title and version of this server, as a JSON object. */
#define MCP_SERVER_INFO "{\"name\":\"gatehouse\",\"title\":\"Gatehouse\",\"version\":\"" GATEHOUSE_VERSION "\"}"
#define MCP_META_PREFIX "io.modelcontextprotocol/"

/* Appends the members of a `_meta` object that belong to nobody on this hop: neither progressToken, trace context nor
 * the reserved prefix. *comma as in mcp_write_member. */
void mcp_meta_copy_foreign(struct buf *out, struct mcp_slice meta, bool *comma);

#endif

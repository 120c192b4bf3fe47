/* session.c: sessions of the legacy era. The core owns them (SPI-SES), so they outlive this process; what was looked up
 * is kept here under its lease. A session belongs to one caller and one server: for anyone else it does not exist
 * (MCP-2). */
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"
#include "wire/nano/core/spi/session/v1/session.pb.h"

#define SESSION_ID_MAX 128
#define STREAMS_PER_SESSION_MAX 4

static void session_end(struct mcp *mcp, struct mcp_session *session) {
  if (session->ended)
    return;
  session->ended = true;
  HASH_DELETE(hh, mcp->sessions, session);
  mcp_session_release(mcp, &session); /* the table's hold */
}

void mcp_session_release(struct mcp *mcp, struct mcp_session **holder) {
  struct mcp_session *session = BASE_TAKE(*holder);
  (void)mcp;
  if (!session || --session->holds > 0)
    return;
  base_free(session->id);
  base_free(session->owner);
  base_free(session->server_id);
  base_free(session);
}

static struct mcp_session *session_local(const struct mcp *mcp, const char *id) {
  struct mcp_session *session = NULL;
  HASH_FIND_STR(mcp->sessions, id, session);
  return session;
}

/* Keeps what the core said of a session; borrowed. */
static struct mcp_session *session_keep(struct mcp_exchange *exchange, const core_spi_session_v1_Session *said,
                                        enum mcp_version version, uint32_t ttl_ms) {
  struct mcp *mcp = exchange->mcp;
  struct mcp_session *session = session_local(mcp, said->session_id);
  if (!session) {
    session = BASE_NEW(struct mcp_session);
    session->id = base_strdup(said->session_id);
    session->owner = base_strdup(exchange->caller->owner);
    session->server_id = base_strdup(exchange->server_id);
    session->holds = 1;
    TAILQ_INIT(&session->calls);
    TAILQ_INIT(&session->streams);
    HASH_ADD_KEYPTR(hh, mcp->sessions, session->id, strlen(session->id), session);
  }
  session->version = version;
  session->valid_until_ms = clock_monotonic_ms() + ttl_ms;
  return session;
}

static void session_adopt(struct mcp_exchange *exchange, struct mcp_session *session) {
  session->holds++;
  exchange->session = session;
  mcp_exchange_dispatch(exchange);
}

/* ---- looking up ---- */

static void session_got(void *arg, const struct rpc_status *status, void *reply) {
  struct mcp_exchange *exchange = arg;
  const core_spi_session_v1_GetSessionResponse *response = reply;
  const core_spi_session_v1_Session *said = response ? response->session : NULL;
  exchange->spi = NULL;
  if (status->code != RPC_OK && status->error.category != ERROR_CATEGORY_NOT_FOUND) {
    if (mcp_exchange_renew_caller(exchange, &status->error))
      return;
    if (!mcp_exchange_await_core(exchange)) /* the question left nothing behind */
      mcp_exchange_fail_error(exchange, &status->error);
    return;
  }
  enum mcp_version version = said ? mcp_version_find(said->protocol_version) : MCP_VERSION_NONE;
  if (version == MCP_VERSION_NONE || !str_equal(said->session_id, exchange->session_id) ||
      !str_equal(said->protocol_family, MCP_FAMILY)) {
    struct mcp_session *local = session_local(exchange->mcp, exchange->session_id);
    if (local && str_equal(local->owner, exchange->caller->owner))
      session_end(exchange->mcp, local);
    mcp_exchange_fail_fault(exchange, MCP_FAULT_SESSION_UNKNOWN);
    return;
  }
  session_adopt(exchange, session_keep(exchange, said, version, response->lease ? response->lease->ttl_ms : 0));
}

void mcp_session_find(struct mcp_exchange *exchange) {
  struct mcp *mcp = exchange->mcp;
  const char *id = exchange->session_id;
  if (str_is_empty(id)) {
    mcp_exchange_fail_fault(exchange, MCP_FAULT_SESSION_REQUIRED);
    return;
  }
  if (!str_is_visible_ascii(id) || strlen(id) > SESSION_ID_MAX) {
    mcp_exchange_fail_fault(exchange, MCP_FAULT_SESSION_UNKNOWN);
    return;
  }
  struct mcp_session *session = session_local(mcp, id);
  if (session &&
      (!str_equal(session->owner, exchange->caller->owner) || !str_equal(session->server_id, exchange->server_id))) {
    mcp_exchange_fail_fault(exchange, MCP_FAULT_SESSION_UNKNOWN);
    return;
  }
  if (session && session->valid_until_ms > clock_monotonic_ms()) {
    session_adopt(exchange, session);
    return;
  }
  core_common_v1_CallerContext caller = {0};
  core_spi_session_v1_GetSessionRequest request = {
      .caller = &caller, .session_id = (char *)(uintptr_t)id, .server_id = (char *)(uintptr_t)exchange->server_id};
  mcp_caller_fill(exchange, &caller);
  exchange->spi = module_spi_call(mcp->module, SPI_SESSION_GET, &request, 0, session_got, exchange);
}

/* ---- initialize ---- */

static void initialized(void *arg, const struct rpc_status *status, void *reply) {
  struct mcp_call *call = arg;
  struct mcp_exchange *exchange = call->exchange;
  const core_spi_session_v1_CreateSessionResponse *response = reply;
  const struct mcp_config *config = &exchange->mcp->config;
  struct error err = status->error;
  struct buf out = {0};
  bool comma;
  call->spi = NULL;
  const core_spi_session_v1_Session *said = response ? response->session : NULL;
  if (!said || !said->session_id || !str_is_visible_ascii(said->session_id)) {
    if (status->code == RPC_OK)
      error_set(&err, ERR_INTERNAL, NULL);
    mcp_call_fail_error(call, &err);
    return;
  }
  int64_t left_ms = exchange->caller->valid_until_ms - clock_monotonic_ms();
  session_keep(exchange, said, exchange->version, left_ms > 0 ? (uint32_t)left_ms : 0);
  http_response_header_add(exchange->request, "Mcp-Session-Id", said->session_id);
  const char *version = mcp_version_text(exchange->version);
  mcp_write_result_open(&out, call->message.id, MCP_ERA_LEGACY, (struct mcp_slice){0}, &comma);
  buf_printf(&out, "\"protocolVersion\":\"%s\",\"capabilities\":{\"tools\":{}},\"serverInfo\":" MCP_SERVER_INFO,
             version);
  if (config->instructions) {
    buf_append_text(&out, ",\"instructions\":");
    buf_append_json_string(&out, config->instructions, strlen(config->instructions));
  }
  mcp_write_result_close(&out);
  mcp_call_reply(call, 200, &out);
}

void mcp_session_initialize(struct mcp_call *call) {
  struct mcp_exchange *exchange = call->exchange;
  char *asked = mcp_token_text(call->message.protocol_version);
  enum mcp_version version = mcp_version_find(asked);
  base_free(asked);
  exchange->version = version && mcp_version_era(version) == MCP_ERA_LEGACY ? version : MCP_VERSION_LEGACY_NEWEST;
  core_common_v1_CallerContext caller = {0};
  core_spi_session_v1_CreateSessionRequest request = {
      .caller = &caller,
      .protocol_family = (char *)(uintptr_t)MCP_FAMILY,
      .protocol_version = (char *)(uintptr_t)mcp_version_text(exchange->version),
      .server_id = (char *)(uintptr_t)exchange->server_id,
      .state_json = (char *)(uintptr_t) "{}",
      .idle_timeout_ms = exchange->mcp->config.session_idle_timeout_ms,
  };
  mcp_caller_fill(exchange, &caller);
  call->spi = module_spi_call(exchange->mcp->module, SPI_SESSION_CREATE, &request, 0, initialized, call);
}

/* ---- DELETE ---- */

static void deleted(void *arg, const struct rpc_status *status, void *reply) {
  struct mcp_exchange *exchange = arg;
  struct mcp_session *session = exchange->session;
  struct mcp_exchange *stream;
  struct mcp_call *call;
  (void)reply;
  exchange->spi = NULL;
  if (status->code != RPC_OK && status->error.category != ERROR_CATEGORY_NOT_FOUND) {
    mcp_exchange_fail_error(exchange, &status->error);
    return;
  }
  session_end(exchange->mcp, session);
  while ((call = TAILQ_FIRST(&session->calls)))
    mcp_call_cancel(call);
  while ((stream = TAILQ_FIRST(&session->streams)))
    mcp_exchange_end_stream(stream);
  mcp_exchange_finish_empty(exchange, 204);
}

void mcp_session_delete(struct mcp_exchange *exchange) {
  core_common_v1_CallerContext caller = {0};
  core_spi_session_v1_DeleteSessionRequest request = {.caller = &caller, .session_id = exchange->session->id};
  mcp_caller_fill(exchange, &caller);
  exchange->spi = module_spi_call(exchange->mcp->module, SPI_SESSION_DELETE, &request, 0, deleted, exchange);
}

/* ---- GET ---- */

void mcp_session_stream(struct mcp_exchange *exchange) {
  struct mcp *mcp = exchange->mcp;
  struct mcp_session *session = exchange->session;
  unsigned count = 0;
  struct mcp_exchange *stream;
  TAILQ_FOREACH(stream, &session->streams, session_entry) count++;
  if (count >= STREAMS_PER_SESSION_MAX)
    mcp_exchange_end_stream(TAILQ_FIRST(&session->streams));
  http_sse_start(exchange->request, MCP_SSE_KEEPALIVE_MS);
  exchange->streaming = true;
  exchange->is_stream = true;
  TAILQ_REMOVE(&mcp->exchanges, exchange, entry);
  mcp->in_flight--;
  TAILQ_INSERT_TAIL(&mcp->streams, exchange, entry);
  TAILQ_INSERT_TAIL(&session->streams, exchange, session_entry);
  /* The head goes out at once, so that the client knows that the stream is open. */
  http_sse_comment(exchange->request, "open");
  if (module_is_draining(mcp->module)) /* it came on a connection that was open: the next process has its place */
    mcp_streams_send_away(mcp);
}

/* ---- the rest ---- */

void mcp_session_cancel(struct mcp_session *session, struct mcp_slice request_id) {
  struct mcp_call *call;
  TAILQ_FOREACH(call, &session->calls, session_entry) {
    if (call->message.method != MCP_METHOD_INITIALIZE && mcp_token_same(call->message.id, request_id)) {
      mcp_call_cancel(call);
      return;
    }
  }
}

void mcp_sessions_sweep(struct mcp *mcp) {
  int64_t now_ms = clock_monotonic_ms();
  struct mcp_session *session, *next;
  HASH_ITER(hh, mcp->sessions, session, next) {
    if (session->holds == 1 && session->valid_until_ms <= now_ms)
      session_end(mcp, session);
  }
}

void mcp_sessions_forget(struct mcp *mcp) {
  struct mcp_session *session, *next;
  HASH_ITER(hh, mcp->sessions, session, next) {
    session->valid_until_ms = 0;
    if (session->holds == 1)
      session_end(mcp, session);
  }
}

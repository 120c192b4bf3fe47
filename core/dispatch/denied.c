/* denied.c: invocations that were refused before anything was carried out leave a trace too (SPI-9, SPI-16): a count by
 * code, a line of the audit chain, and where the caller sees the record an event. What is said of a record that the
 * caller does not see is what is said of one that does not exist, and takes the same steps (SPI-5).
 *
 * A caller can be refused as often as it likes, so what is written down is bounded: LINES_PER_CALLER a minute for each
 * caller, LINES_MAX in all. What was passed over is counted, and said at the end of the minute. */
#include <stdio.h>
#include <string.h>

#include "core/dispatch/dispatch_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"

#define MINUTE_MS 60000
#define LINES_PER_CALLER 10
#define LINES_MAX 300
#define CALLERS_MAX 256 /* with counts of their own; the others share one, and leave no lines */
#define ASKED_MAX 128
#define KEY_BYTES 384

/* One caller's denials of this minute. */
struct dispatch_denials {
  char key[KEY_BYTES]; /* "<subject> <token id>"; "": of all others */
  uint32_t lines, suppressed;
  UT_hash_handle hh;
};

static void suppressed_write(struct dispatch *dispatch, const struct dispatch_denials *denials) {
  char details[64];
  if (!denials->suppressed)
    return;
  snprintf(details, sizeof(details), "{\"suppressed\":%u}", denials->suppressed);
  observe_audit_append(dispatch->options.observe, &(struct observe_audit){.action = "invoke.denied",
                                                                          .actor = denials->key,
                                                                          .outcome = "denied",
                                                                          .details_json = details});
}

static void minute_over(void *argument) {
  struct dispatch *dispatch = argument;
  struct dispatch_denials *denials, *next;
  dispatch->denials_timer = NULL;
  dispatch->denials_lines = 0;
  HASH_ITER(hh, dispatch->denials, denials, next) {
    suppressed_write(dispatch, denials);
    HASH_DEL(dispatch->denials, denials);
    base_free(denials);
  }
}

void dispatch_denials_free(struct dispatch *dispatch) {
  core_rpc_timer_cancel(&dispatch->denials_timer);
  minute_over(dispatch);
}

static struct dispatch_denials *denials_of(struct dispatch *dispatch, const struct policy_context *context) {
  struct dispatch_denials *denials = NULL;
  char key[KEY_BYTES];
  snprintf(key, sizeof(key), "%s %s", context->user_email, context->token_id);
  HASH_FIND_STR(dispatch->denials, key, denials);
  if (!denials && HASH_COUNT(dispatch->denials) >= CALLERS_MAX) {
    key[0] = '\0';
    HASH_FIND_STR(dispatch->denials, key, denials);
  }
  if (!denials) {
    denials = BASE_NEW(struct dispatch_denials);
    memcpy(denials->key, key, sizeof(key));
    HASH_ADD_STR(dispatch->denials, key, denials);
    if (!dispatch->denials_timer)
      dispatch->denials_timer = core_rpc_timer_start(dispatch->options.loop, MINUTE_MS, minute_over, dispatch);
  }
  return denials;
}

/* Whether this one is written down. */
static bool line_take(struct dispatch *dispatch, const struct policy_context *context) {
  struct dispatch_denials *denials = denials_of(dispatch, context);
  if (!denials->key[0] || denials->lines == LINES_PER_CALLER || dispatch->denials_lines == LINES_MAX) {
    denials->suppressed++;
    return false;
  }
  denials->lines++;
  dispatch->denials_lines++;
  return true;
}

static void line_write(struct dispatch *dispatch, const struct dispatch_caller *caller, const char *asked,
                       const struct dispatch_admission *admission, const char *path, const struct error *err) {
  struct buf details = {0};
  buf_append_text(&details, "{\"code\":");
  buf_append_json_string(&details, err->code, strlen(err->code));
  buf_append_text(&details, ",\"path\":");
  buf_append_json_string(&details, path, strlen(path));
  buf_append_text(&details, ",\"module\":");
  buf_append_json_string(&details, caller->module_id, strlen(caller->module_id));
  if (!str_is_empty(asked)) { /* the caller's own words, whatever they name */
    buf_append_text(&details, ",\"asked\":");
    buf_append_json_string(&details, asked, strnlen(asked, ASKED_MAX));
  }
  buf_append_char(&details, '}');
  observe_audit_append(dispatch->options.observe,
                       &(struct observe_audit){.action = "invoke.denied",
                                               .actor = caller->context->user_email,
                                               .target = admission->record ? admission->record->id : "",
                                               .outcome = "denied",
                                               .trace_id = admission->trace_id,
                                               .details_json = details.data,
                                               .details_length = details.length});
  buf_free(&details);
}

void dispatch_denied(struct dispatch *dispatch, const struct dispatch_caller *caller,
                     const Core__Common__V1__InvocationEnvelope *envelope, const struct dispatch_admission *admission,
                     const char *path, const struct error *err) {
  const char *asked = envelope->target ? envelope->target->name : NULL;
  const char *family = admission->record ? admission->record->owner_family : "";
  const char *const labels[] = {family, path, "denied", NULL};
  const char *const codes[] = {family, err->code, NULL};
  observe_count(dispatch->options.observe, OBSERVE_INVOCATIONS, labels, 1);
  observe_count(dispatch->options.observe, OBSERVE_INVOCATIONS_DENIED, codes, 1);
  if (!line_take(dispatch, caller->context))
    return;
  line_write(dispatch, caller, asked, admission, path, err);
  if (!admission->record)
    return;
  const struct psg_execution_start start = dispatch_execution_describe(caller, envelope, admission);
  psg_execution_denied(dispatch->options.psg, &start, err->code);
}

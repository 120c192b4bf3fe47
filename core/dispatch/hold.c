/* hold.c: invocations that were admitted while the module that carries them out is between two lives: it died and is
 * started again, or is on its way through the phases. They wait, each at most hold_ms and never beyond its own
 * deadline, so that a restart which takes some milliseconds costs its callers these milliseconds and nothing else. What
 * was decided stands, but not for a caller whose credential was taken back meanwhile. One whose module does not come
 * back in time is refused as it would have been at once. The number that waits is bounded.
 *
 * What a waiting invocation owns is its packed request, with the credential in it; it is wiped with it. */
#include "core/dispatch/dispatch_internal.h"
#include "sdk/base/clock.h"

#define TIMER_RESOLUTION_US 1000

/* The time is up. */
static void hold_expired(void *argument) {
  struct dispatch_invocation *invocation = argument;
  struct error err = {0};
  invocation->hold_timer = NULL;
  bool late = clock_monotonic_us() + TIMER_RESOLUTION_US >= invocation->deadline_us;
  if (late)
    error_set(&err, ERR_DEADLINE_EXCEEDED, NULL);
  else if (dispatch_invocation_send(invocation, &err)) { /* in the same moment */
    dispatch_hold_end(invocation, "served");
    return;
  }
  dispatch_hold_end(invocation, late ? "deadline" : "refused");
  dispatch_invocation_fail(invocation, &err);
}

bool dispatch_hold(struct dispatch_invocation *invocation) {
  struct dispatch *dispatch = invocation->dispatch;
  uint32_t hold_ms = dispatch->options.hold_ms;
  if (hold_ms == 0 || dispatch->held_count >= dispatch->options.hold_max ||
      !lifecycle_family_returns(dispatch->options.lifecycle, invocation->family, hold_ms))
    return false;
  invocation->held_us = clock_monotonic_us();
  int64_t left_ms = (invocation->deadline_us - invocation->held_us + 999) / 1000;
  uint64_t wait_ms = left_ms <= 0 ? 0 : left_ms < hold_ms ? (uint64_t)left_ms : hold_ms;
  invocation->hold_timer = core_rpc_timer_start(dispatch->options.loop, wait_ms, hold_expired, invocation);
  TAILQ_INSERT_TAIL(&dispatch->held, invocation, held);
  dispatch->held_count++;
  return true;
}

void dispatch_hold_end(struct dispatch_invocation *invocation, const char *outcome) {
  struct dispatch *dispatch = invocation->dispatch;
  const char *const labels[] = {invocation->family, outcome, NULL};
  core_rpc_timer_cancel(&invocation->hold_timer);
  TAILQ_REMOVE(&dispatch->held, invocation, held);
  dispatch->held_count--;
  observe_count(dispatch->options.observe, OBSERVE_HOLDS, labels, 1);
  observe_duration(dispatch->options.observe, OBSERVE_HOLD_SECONDS, labels,
                   (uint64_t)(clock_monotonic_us() - invocation->held_us));
}

void dispatch_held_go(struct dispatch *dispatch) {
  struct dispatch_invocation *invocation, *next;
  for (invocation = TAILQ_FIRST(&dispatch->held); invocation; invocation = next) {
    struct error err = {0};
    next = TAILQ_NEXT(invocation, held);
    if (!policy_context_is_alive(dispatch->options.policy, invocation->context)) {
      error_set(&err, ERR_AUTH_CONTEXT_EXPIRED, NULL);
      dispatch_hold_end(invocation, "refused");
      dispatch_invocation_fail(invocation, &err);
    } else if (dispatch_invocation_send(invocation, &err)) {
      dispatch_hold_end(invocation, "served");
    }
  }
}

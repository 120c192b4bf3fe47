/* alerts.c: what operators have to know, told to the supervisor, which runs the program of `alerts.program` for it
 * (LIF-8, LIF-10, LIF-11; supervisor/alerts.c). The core only says what it has decided, each time that it does: the
 * supervisor outlives it, and knows what was told. An alert that the channel does not take is kept and sent again, the
 * oldest of ALERTS_KEPT_MAX given up for a newer one. What becomes of the alerts comes back as a report, for the
 * metrics and the status. */
#include <stdio.h>
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define AGAIN_MS 200

static void send_kept(void *argument) {
  struct lifecycle *lifecycle = argument;
  struct lifecycle_alerts *alerts = &lifecycle->alerts;
  size_t sent = 0;
  alerts->timer = NULL;
  while (sent < alerts->kept_count && lifecycle_control_alert(lifecycle->control, &alerts->kept[sent]))
    sent++;
  alerts->kept_count -= sent;
  memmove(&alerts->kept[0], &alerts->kept[sent], alerts->kept_count * sizeof(alerts->kept[0]));
  if (alerts->kept_count > 0)
    alerts->timer = core_rpc_timer_start(lifecycle->options.loop, AGAIN_MS, send_kept, lifecycle);
}

void lifecycle_alert(struct lifecycle *lifecycle, enum lifecycle_alert_condition condition, const char *name,
                     uint64_t generation, const char *reason) {
  struct lifecycle_alerts *alerts = &lifecycle->alerts;
  if (!lifecycle->control || lifecycle->stopping)
    return;
  if (alerts->kept_count == LIFECYCLE_ALERTS_KEPT_MAX) {
    log_event(LOG_ERROR, "lifecycle", "an alert is lost: the supervisor does not read",
              LOG_TEXT("module", alerts->kept[0].module_id), LOG_TEXT("reason", alerts->kept[0].reason));
    memmove(&alerts->kept[0], &alerts->kept[1], --alerts->kept_count * sizeof(alerts->kept[0]));
  }
  supervisor_control_v1_RaiseAlert *alert = &alerts->kept[alerts->kept_count++];
  *alert = (supervisor_control_v1_RaiseAlert){
      .condition = (supervisor_control_v1_AlertCondition)condition, .generation = generation, .at_ms = clock_wall_ms()};
  str_copy(alert->module_id, sizeof(alert->module_id), name);
  str_copy(alert->reason, sizeof(alert->reason), reason);
  if (!alerts->timer)
    send_kept(lifecycle);
}

void lifecycle_alerts_report(struct lifecycle *lifecycle, const supervisor_control_v1_AlertReport *report) {
  struct lifecycle_alerts *alerts = &lifecycle->alerts;
  const struct {
    const char *outcome;
    uint64_t count;
  } counts[] = {{"delivered", report->delivered},
                {"failed", report->failed},
                {"lost", report->lost},
                {"waiting", report->waiting}};
  for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
    const char *const labels[] = {counts[i].outcome, NULL};
    observe_gauge_set(lifecycle->options.observe, OBSERVE_ALERTS, labels, (double)counts[i].count);
  }
  alerts->failed = report->failed;
  alerts->lost = report->lost;
  alerts->waiting = report->waiting;
  str_copy(alerts->problem, sizeof(alerts->problem), report->problem);
}

bool lifecycle_alerts_warning(const struct lifecycle *lifecycle, char *target, size_t target_bytes) {
  const struct lifecycle_alerts *alerts = &lifecycle->alerts;
  if (!alerts->problem[0])
    return false;
  snprintf(target, target_bytes,
           "the program of alerts.program fails: %s (alerts waiting %u, not told %llu, lost %llu)", alerts->problem,
           alerts->waiting, (unsigned long long)alerts->failed, (unsigned long long)alerts->lost);
  return true;
}

/* machine_test.c: walks every cell of the state machine (LIF-1): what may happen, what may not, and that no state is a
 * trap or out of reach. */
#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/test.h"

/* The road of a healthy instance and its ends, written out a second time on purpose. */
static const struct {
  enum lifecycle_state from;
  enum lifecycle_event event;
  enum lifecycle_state to;
} road[] = {
    {LIFECYCLE_DISCOVERED, LIFECYCLE_ON_DESCRIBED, LIFECYCLE_REGISTERED},
    {LIFECYCLE_REGISTERED, LIFECYCLE_ON_INITIALIZE_SENT, LIFECYCLE_INITIALIZING},
    {LIFECYCLE_INITIALIZING, LIFECYCLE_ON_INITIALIZED, LIFECYCLE_WARMING},
    {LIFECYCLE_WARMING, LIFECYCLE_ON_HEALTHY, LIFECYCLE_READY},
    {LIFECYCLE_READY, LIFECYCLE_ON_UNHEALTHY, LIFECYCLE_DEGRADED},
    {LIFECYCLE_DEGRADED, LIFECYCLE_ON_HEALTHY, LIFECYCLE_READY},
    {LIFECYCLE_READY, LIFECYCLE_ON_DRAIN_ORDERED, LIFECYCLE_DRAINING},
    {LIFECYCLE_DRAINING, LIFECYCLE_ON_DRAINED, LIFECYCLE_STOPPING},
    {LIFECYCLE_STOPPING, LIFECYCLE_ON_EXITED, LIFECYCLE_STOPPED},
    {LIFECYCLE_READY, LIFECYCLE_ON_LOST, LIFECYCLE_FAILED},
    {LIFECYCLE_READY, LIFECYCLE_ON_EXITED, LIFECYCLE_STOPPED},
};

START_TEST(the_road_of_an_instance_is_as_documented) {
  for (size_t i = 0; i < sizeof(road) / sizeof(road[0]); i++) {
    enum lifecycle_state to;
    ck_assert_msg(lifecycle_transition_lookup(road[i].from, road[i].event, &to), "row %zu is forbidden", i);
    ck_assert_int_eq(to, road[i].to);
  }
}
END_TEST

START_TEST(nothing_but_proven_health_leads_to_ready) {
  for (unsigned from = 0; from < LIFECYCLE_STATE_COUNT; from++)
    for (unsigned event = 0; event < LIFECYCLE_EVENT_COUNT; event++) {
      enum lifecycle_state to;
      if (!lifecycle_transition_lookup((enum lifecycle_state)from, (enum lifecycle_event)event, &to) ||
          to != LIFECYCLE_READY)
        continue;
      ck_assert_int_eq(event, LIFECYCLE_ON_HEALTHY);
      ck_assert(from == LIFECYCLE_WARMING || from == LIFECYCLE_DEGRADED);
    }
}
END_TEST

START_TEST(an_instance_that_ended_never_serves_again) {
  static const enum lifecycle_state ended[] = {LIFECYCLE_FAILED, LIFECYCLE_STOPPED, LIFECYCLE_BACKOFF,
                                               LIFECYCLE_QUARANTINED};
  for (size_t i = 0; i < sizeof(ended) / sizeof(ended[0]); i++)
    for (unsigned event = 0; event < LIFECYCLE_EVENT_COUNT; event++) {
      enum lifecycle_state to;
      if (!lifecycle_transition_lookup(ended[i], (enum lifecycle_event)event, &to))
        continue;
      ck_assert(to == LIFECYCLE_STOPPED || to == LIFECYCLE_BACKOFF || to == LIFECYCLE_QUARANTINED);
    }
}
END_TEST

/* What an instance says can be unusable at any time; then its connection ends, and the state must not say otherwise. */
START_TEST(every_connected_state_can_be_refused) {
  for (unsigned from = LIFECYCLE_DISCOVERED; from <= LIFECYCLE_DRAINING; from++) {
    enum lifecycle_state to;
    ck_assert(lifecycle_transition_lookup((enum lifecycle_state)from, LIFECYCLE_ON_REFUSED, &to));
    ck_assert(to == LIFECYCLE_FAILED || to == LIFECYCLE_STOPPED);
  }
}
END_TEST

START_TEST(every_living_state_can_lose_its_process) {
  for (unsigned from = LIFECYCLE_DISCOVERED; from <= LIFECYCLE_STOPPING; from++) {
    enum lifecycle_state to;
    ck_assert(lifecycle_transition_lookup((enum lifecycle_state)from, LIFECYCLE_ON_EXITED, &to));
    ck_assert_int_eq(to, LIFECYCLE_STOPPED);
    ck_assert(lifecycle_transition_lookup((enum lifecycle_state)from, LIFECYCLE_ON_LOST, &to));
    ck_assert(to == LIFECYCLE_FAILED || to == LIFECYCLE_STOPPED);
  }
}
END_TEST

START_TEST(every_state_can_be_reached) {
  bool reached[LIFECYCLE_STATE_COUNT] = {[LIFECYCLE_DISCOVERED] = true};
  for (unsigned round = 0; round < LIFECYCLE_STATE_COUNT; round++)
    for (unsigned from = 0; from < LIFECYCLE_STATE_COUNT; from++)
      for (unsigned event = 0; event < LIFECYCLE_EVENT_COUNT; event++) {
        enum lifecycle_state to;
        if (reached[from] && lifecycle_transition_lookup((enum lifecycle_state)from, (enum lifecycle_event)event, &to))
          reached[to] = true;
      }
  for (unsigned state = 0; state < LIFECYCLE_STATE_COUNT; state++)
    ck_assert_msg(reached[state], "%s is out of reach", lifecycle_state_name((enum lifecycle_state)state));
}
END_TEST

TEST_MAIN("lifecycle machine", the_road_of_an_instance_is_as_documented, nothing_but_proven_health_leads_to_ready,
          an_instance_that_ended_never_serves_again, every_connected_state_can_be_refused,
          every_living_state_can_lose_its_process, every_state_can_be_reached)

/* post_test.c: the multi-producer queue, also meant for ThreadSanitizer. */
#include "core/rpc/post.h"

#include <pthread.h>
#include <semaphore.h>

#include "sdk/base/test.h"

enum { PRODUCERS = 4, TASKS = 20000 };

static sem_t wakes;
static unsigned long ran[PRODUCERS];
static bool disordered;
static struct post_queue queue;

struct order {
  unsigned producer, number;
};
static struct order orders[PRODUCERS][TASKS];

static void wake(void *argument) {
  sem_post(argument);
}

static void task_run(void *argument) {
  const struct order *order = argument;
  disordered = disordered || order->number != ran[order->producer];
  ran[order->producer]++;
}

static void *produce(void *argument) {
  unsigned producer = (unsigned)(size_t)argument;
  for (unsigned i = 0; i < TASKS; i++) {
    orders[producer][i] = (struct order){producer, i};
    if (!post_queue_push(&queue, task_run, &orders[producer][i]))
      return (void *)1;
  }
  return NULL;
}

START_TEST(every_task_of_every_thread_runs_once_and_in_order) {
  pthread_t threads[PRODUCERS];
  sem_init(&wakes, 0, 0);
  post_queue_init(&queue, wake, &wakes);
  for (size_t i = 0; i < PRODUCERS; i++)
    pthread_create(&threads[i], NULL, produce, (void *)i);
  size_t total = 0;
  while (total < (size_t)PRODUCERS * TASKS) {
    sem_wait(&wakes);
    total += post_queue_run(&queue);
  }
  for (size_t i = 0; i < PRODUCERS; i++)
    pthread_join(threads[i], NULL);
  ck_assert(!disordered);
  for (size_t i = 0; i < PRODUCERS; i++)
    ck_assert_uint_eq(ran[i], TASKS);
  ck_assert_int_ne(sem_trywait(&wakes), 0); /* no wake without work */
  ck_assert(post_queue_close(&queue));
}
END_TEST

static void task_push_again(void *argument) {
  unsigned *left = argument;
  if (--*left > 0)
    post_queue_push(&queue, task_push_again, left);
}

START_TEST(a_task_may_push_and_its_push_comes_with_a_new_wake) {
  unsigned left = 3;
  sem_init(&wakes, 0, 0);
  post_queue_init(&queue, wake, &wakes);
  post_queue_push(&queue, task_push_again, &left);
  for (unsigned i = 3; i > 0; i--) {
    ck_assert_int_eq(sem_trywait(&wakes), 0);
    ck_assert_uint_eq(post_queue_run(&queue), 1);
    ck_assert_uint_eq(left, i - 1);
  }
  ck_assert(post_queue_close(&queue));
}
END_TEST

START_TEST(a_closed_queue_refuses_and_a_filled_one_does_not_close) {
  unsigned left = 1;
  sem_init(&wakes, 0, 0);
  post_queue_init(&queue, wake, &wakes);
  ck_assert(post_queue_push(&queue, task_push_again, &left));
  ck_assert(!post_queue_close(&queue));
  ck_assert_uint_eq(post_queue_run(&queue), 1);
  ck_assert(post_queue_close(&queue));
  ck_assert(!post_queue_push(&queue, task_push_again, &left));
  ck_assert_uint_eq(post_queue_run(&queue), 0);
  ck_assert(post_queue_close(&queue));
}
END_TEST

TEST_MAIN("core_rpc.post", every_task_of_every_thread_runs_once_and_in_order,
          a_task_may_push_and_its_push_comes_with_a_new_wake, a_closed_queue_refuses_and_a_filled_one_does_not_close)

/* context.c: the registry of contexts (SPI-3). Each context is found by its reference, by the credential it came from,
 * by age, and by user; it leaves all four at once when it ends. It ends by time, by revocation (the listener is told),
 * when its module is gone, or with the room. Its memory goes when it has ended and nobody holds it. */
#include <string.h>

#include "core/policy/policy_internal.h"
#include "sdk/base/id.h"

#define SWEEP_INTERVAL_US INT64_C(1000000)

static struct context *context_of(const struct policy_context *seen) {
  struct context *context = (struct context *)(uintptr_t)seen; /* first member; holders get it as const */
  BASE_CHECK_MAGIC(context, CONTEXT_MAGIC);
  return context;
}

static void context_dispose(struct context *context) {
  if (context->alive || context->holds > 0)
    return;
  struct arena *arena = context->arena; /* the context lives in it */
  context->magic = 0;
  arena_free(&arena);
}

/* ---- Entering and ending ---- */

void context_enter(struct policy *policy, struct context *context) {
  uint8_t random[32];
  id_random_bytes(random, sizeof(random));
  char *reference = str_base64url_encode(random, sizeof(random));
  BASE_CHECK(str_copy(context->reference, sizeof(context->reference), reference));
  base_free(reference);
  context->seen.reference = context->reference;
  context->magic = CONTEXT_MAGIC;
  context->alive = true;
  context->module->contexts++;
  HASH_ADD(hh, policy->contexts, reference, POLICY_REFERENCE_LENGTH, context);
  TAILQ_INSERT_TAIL(&policy->contexts_by_age, context, by_age);

  struct context *older = NULL; /* of the same credential, about to end: the newer one takes its place */
  HASH_FIND(hh_cache, policy->contexts_cached, context->cache_key, POLICY_HASH_BYTES, older);
  if (older != NULL) {
    HASH_DELETE(hh_cache, policy->contexts_cached, older);
    older->cached = false;
  }
  HASH_ADD(hh_cache, policy->contexts_cached, cache_key, POLICY_HASH_BYTES, context);
  context->cached = true;

  const char *email = context->seen.user_email;
  HASH_FIND_STR(policy->subjects, email, context->subject);
  if (context->subject == NULL) {
    size_t size = strlen(email) + 1;
    context->subject = base_calloc(1, sizeof(*context->subject) + size);
    memcpy(context->subject->email, email, size);
    HASH_ADD_STR(policy->subjects, email, context->subject);
  }
  LIST_INSERT_HEAD(&context->subject->contexts, context, by_subject);
}

/* Takes it out of every index; the memory stays. */
static void context_detach(struct policy *policy, struct context *context) {
  HASH_DEL(policy->contexts, context);
  if (context->cached)
    HASH_DELETE(hh_cache, policy->contexts_cached, context);
  TAILQ_REMOVE(&policy->contexts_by_age, context, by_age);
  LIST_REMOVE(context, by_subject);
  if (LIST_EMPTY(&context->subject->contexts)) {
    HASH_DEL(policy->subjects, context->subject);
    base_free(context->subject);
  }
  context->subject = NULL;
  context->module->contexts--;
  context->module = NULL;
  context->cached = false;
  context->alive = false;
}

void context_end(struct policy *policy, struct context *context) {
  context_detach(policy, context);
  context_dispose(context);
}

void context_end_all(struct policy *policy) {
  struct context *context, *next;
  HASH_ITER(hh, policy->contexts, context, next)
  context_end(policy, context);
}

bool context_has_room(struct policy *policy, const struct module *module) {
  int64_t now_us = policy_monotonic_us(policy);
  struct context *context, *next;
  while ((context = TAILQ_FIRST(&policy->contexts_by_age)) != NULL && context->deadline_us <= now_us)
    context_end(policy, context);
  uint32_t share = policy->contexts_max / 2 > 0 ? policy->contexts_max / 2 : 1;
  bool full = HASH_COUNT(policy->contexts) >= policy->contexts_max || module->contexts >= share;
  if (!full || now_us - policy->contexts_swept_us < SWEEP_INTERVAL_US)
    return !full;
  policy->contexts_swept_us = now_us; /* some behind the oldest may have had a shorter life */
  HASH_ITER(hh, policy->contexts, context, next) {
    if (context->deadline_us <= now_us)
      context_end(policy, context);
  }
  return HASH_COUNT(policy->contexts) < policy->contexts_max && module->contexts < share;
}

/* ---- Finding ---- */

struct context *context_cached(struct policy *policy, const uint8_t key[static POLICY_HASH_BYTES]) {
  struct context *context = NULL;
  HASH_FIND(hh_cache, policy->contexts_cached, key, POLICY_HASH_BYTES, context);
  return context;
}

const struct policy_context *policy_context_find(struct policy *policy, const char *module_id, const char *reference,
                                                 size_t length, struct error *err) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  struct context *context = NULL;
  if (length == POLICY_REFERENCE_LENGTH)
    HASH_FIND(hh, policy->contexts, reference, POLICY_REFERENCE_LENGTH, context);
  if (context != NULL && strcmp(context->module->id, module_id) == 0) {
    if (policy_monotonic_us(policy) < context->deadline_us)
      return &context->seen;
    context_end(policy, context);
  }
  error_set(err, ERR_AUTH_CONTEXT_EXPIRED, NULL);
  return NULL;
}

const struct policy_context *policy_context_hold(const struct policy_context *seen) {
  context_of(seen)->holds++;
  return seen;
}

void policy_context_release(const struct policy_context **seen) {
  const struct policy_context *gone = BASE_TAKE(*seen);
  if (gone == NULL)
    return;
  struct context *context = context_of(gone);
  BASE_CHECK(context->holds > 0);
  context->holds--;
  context_dispose(context);
}

bool policy_context_is_alive(struct policy *policy, const struct policy_context *seen) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  const struct context *context = context_of(seen);
  return context->alive && policy_monotonic_us(policy) < context->deadline_us;
}

size_t policy_context_count(const struct policy *policy) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  return HASH_COUNT(policy->contexts);
}

/* ---- Revocation ---- */

struct revoked_list {
  struct context **contexts;
  size_t count;
  size_t capacity;
};

static void revoked_add(struct policy *policy, struct revoked_list *list, struct context *context) {
  if (list->count == list->capacity) {
    list->capacity = list->capacity == 0 ? 16 : list->capacity * 2;
    list->contexts = base_realloc_array(list->contexts, list->capacity, sizeof(struct context *));
  }
  list->contexts[list->count++] = context;
  context_detach(policy, context);
}

static int by_module(const void *a, const void *b) {
  const struct context *const *left = a, *const *right = b;
  return strcmp((*left)->seen.module_id, (*right)->seen.module_id);
}

/* One call of the listener for each module. */
static void revoked_tell(const struct policy *policy, struct revoked_list *list) {
  const char **references = base_calloc(list->count, sizeof(char *));
  qsort(list->contexts, list->count, sizeof(struct context *), by_module);
  for (size_t i = 0; i < list->count; i++)
    references[i] = list->contexts[i]->reference;
  for (size_t start = 0, end; start < list->count; start = end) {
    end = start + 1;
    while (end < list->count && by_module(&list->contexts[start], &list->contexts[end]) == 0)
      end++;
    policy->revoked(policy->revoked_arg, list->contexts[start]->seen.module_id, references + start, end - start);
  }
  base_free(references);
}

void context_revoke(struct policy *policy, const char *email, context_test *test, const void *arg) {
  struct revoked_list list = {0};
  struct context *context, *next;
  if (email != NULL) {
    struct subject *subject = NULL;
    HASH_FIND_STR(policy->subjects, email, subject);
    context = subject == NULL ? NULL : LIST_FIRST(&subject->contexts);
    for (; context != NULL; context = next) {
      next = LIST_NEXT(context, by_subject); /* the subject goes with its last context */
      if (test == NULL || test(policy, context, arg))
        revoked_add(policy, &list, context);
    }
  } else {
    HASH_ITER(hh, policy->contexts, context, next) {
      if (test(policy, context, arg))
        revoked_add(policy, &list, context);
    }
  }
  if (list.count > 0 && policy->revoked != NULL)
    revoked_tell(policy, &list);
  for (size_t i = 0; i < list.count; i++)
    context_dispose(list.contexts[i]);
  base_free(list.contexts);
}

/* check.h: assertions that stay on in release. An impossible state logs a panic line and aborts: the process is
 * restarted and its state is in the store. Never use these on anything a peer, a file or an operator can cause. */
#ifndef GATEHOUSE_BASE_CHECK_H
#define GATEHOUSE_BASE_CHECK_H

void base_panic(const char *file, int line, const char *condition) __attribute__((noreturn, cold));

#define BASE_CHECK(condition)                                                                                          \
  do {                                                                                                                 \
    if (__builtin_expect(!(condition), 0))                                                                             \
      base_panic(__FILE__, __LINE__, #condition);                                                                      \
  } while (0)

/* First member of a long-lived struct: `uint32_t magic;`. BASE_CHECK_MAGIC at each public entry. */
#define BASE_CHECK_MAGIC(object, word) BASE_CHECK((object) != NULL && (object)->magic == (word))

#endif

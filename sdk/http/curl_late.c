/* curl_late.c: libcurl, loaded when it is first needed instead of when the process starts.
 *
 * libcurl brings some thirty libraries along (LDAP, Kerberos, GnuTLS and more), and loading them was two thirds of the
 * time from fork to "started", also for processes that call nobody. So this file defines the functions of libcurl that
 * this room uses, under their own names and with libcurl's own declarations; each passes on to the shared library. They
 * are not exported from the program, so the library itself never sees them.
 *
 * http_client_prepare() loads it on a thread of its own while the caller goes on; whoever needs it meanwhile waits.
 * A machine without libcurl is a broken installation: the process says so and aborts. */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/check.h"
#include "sdk/base/crash.h"
#include "sdk/base/log.h"
#include "sdk/base/secret.h"
#include "sdk/http/http_client.h"

#define LIBRARY "libcurl.so.4" /* its interface has not changed since 2006; docs/operating.md */

#if LIBCURL_VERSION_NUM >= 0x080000
#define URL_READ const
#else
#define URL_READ
#endif

/* result, name, parameters, arguments */
#define FUNCTIONS(X)                                                                                                   \
  X(CURL *, curl_easy_init, (void), ())                                                                                \
  X(void, curl_easy_cleanup, (CURL * easy), (easy))                                                                    \
  X(CURLcode, curl_easy_pause, (CURL * easy, int what), (easy, what))                                                  \
  X(CURLM *, curl_multi_init, (void), ())                                                                              \
  X(CURLMcode, curl_multi_cleanup, (CURLM * multi), (multi))                                                           \
  X(CURLMcode, curl_multi_add_handle, (CURLM * multi, CURL * easy), (multi, easy))                                     \
  X(CURLMcode, curl_multi_remove_handle, (CURLM * multi, CURL * easy), (multi, easy))                                  \
  X(CURLMcode, curl_multi_assign, (CURLM * multi, curl_socket_t fd, void *data), (multi, fd, data))                    \
  X(CURLMcode, curl_multi_perform, (CURLM * multi, int *running), (multi, running))                                    \
  X(CURLMcode, curl_multi_socket_action, (CURLM * multi, curl_socket_t fd, int what, int *running),                    \
    (multi, fd, what, running))                                                                                        \
  X(CURLMsg *, curl_multi_info_read, (CURLM * multi, int *left), (multi, left))                                        \
  X(void, curl_free, (void *memory), (memory))                                                                         \
  X(CURLU *, curl_url, (void), ())                                                                                     \
  X(void, curl_url_cleanup, (CURLU * url), (url))                                                                      \
  X(CURLUcode, curl_url_get, (URL_READ CURLU * url, CURLUPart what, char **part, unsigned flags),                      \
    (url, what, part, flags))                                                                                          \
  X(CURLUcode, curl_url_set, (CURLU * url, CURLUPart what, const char *part, unsigned flags), (url, what, part, flags))

/* One argument after the second: a long, a curl_off_t or a pointer, which libcurl takes off the list itself. */
#define OPTIONS(X)                                                                                                     \
  X(CURLcode, curl_easy_setopt, CURL *, CURLoption)                                                                    \
  X(CURLcode, curl_easy_getinfo, CURL *, CURLINFO)                                                                     \
  X(CURLMcode, curl_multi_setopt, CURLM *, CURLMoption)
_Static_assert(sizeof(long) == sizeof(void *) && sizeof(curl_off_t) == sizeof(void *), "an option is one machine word");

#define MEMBER_FUNCTION(result, name, parameters, arguments) result(*name) parameters;
#define MEMBER_OPTION(result, name, handle_type, option_type) result (*name)(handle_type, option_type, ...);
static struct {
  FUNCTIONS(MEMBER_FUNCTION)
  OPTIONS(MEMBER_OPTION)
  CURLcode (*curl_global_init_mem)(long flags, curl_malloc_callback, curl_free_callback, curl_realloc_callback,
                                   curl_strdup_callback, curl_calloc_callback);
} late;
static pthread_once_t loaded = PTHREAD_ONCE_INIT;

/* ---- its memory: requests are written there, and a credential is held no longer than its call (BND-5) ---- */

static void wiped_free(void *memory) {
  if (memory == NULL)
    return;
  secret_wipe(memory, malloc_usable_size(memory));
  free(memory);
}

static void *wiped_realloc(void *memory, size_t size) {
  size_t held = memory != NULL ? malloc_usable_size(memory) : 0;
  if (size <= held && size > held / 2)
    return memory;
  void *moved = malloc(size > 0 ? size : 1);
  if (moved == NULL)
    return NULL;
  if (memory != NULL)
    memcpy(moved, memory, size < held ? size : held);
  wiped_free(memory);
  return moved;
}

/* ---- loading ---- */

static void *resolve(void *library, const char *name) {
  void *symbol = library != NULL ? dlsym(library, name) : NULL;
  if (symbol == NULL) {
    const char *reason = dlerror();
    log_event(LOG_FATAL, "http", "libcurl cannot be loaded", LOG_TEXT("library", LIBRARY),
              LOG_TEXT("reason", reason != NULL ? reason : name));
    BASE_CHECK(symbol != NULL);
  }
  return symbol;
}

static void load(void) {
  void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL); /* for good */
#define RESOLVE(result, name, ...) *(void **)&late.name = resolve(library, #name);
  FUNCTIONS(RESOLVE)
  OPTIONS(RESOLVE)
  RESOLVE(CURLcode, curl_global_init_mem)
  BASE_CHECK(late.curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiped_free, wiped_realloc, strdup, calloc) ==
             CURLE_OK);
}

#define DEFINE_FUNCTION(result, name, parameters, arguments)                                                           \
  result(name) parameters {                                                                                            \
    pthread_once(&loaded, load);                                                                                       \
    return late.name arguments;                                                                                        \
  }
FUNCTIONS(DEFINE_FUNCTION)

#define DEFINE_OPTION(result, name, handle_type, option_type)                                                          \
  result(name)(handle_type handle, option_type option, ...) {                                                          \
    va_list list;                                                                                                      \
    va_start(list, option);                                                                                            \
    void *value = va_arg(list, void *);                                                                                \
    va_end(list);                                                                                                      \
    pthread_once(&loaded, load);                                                                                       \
    return late.name(handle, option, value);                                                                           \
  }
OPTIONS(DEFINE_OPTION)

/* ---- ahead of time ---- */

static pthread_t preparing;

static void *prepare(void *argument) {
  pthread_once(&loaded, load);
  return argument;
}

/* No destructor may run while the loader is at work. */
static void prepare_end(void) {
  pthread_join(preparing, NULL);
}

void http_client_prepare(void) {
  static bool begun;
  sigset_t before;
  if (begun)
    return;
  begun = true;
  crash_signals_block_others(&before);
  if (pthread_create(&preparing, NULL, prepare, NULL) == 0) /* without a thread it is loaded when it is needed */
    atexit(prepare_end);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

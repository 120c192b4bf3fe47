/* reflection.c: server reflection v1 and v1alpha (the same messages) over an embedded FileDescriptorSet, so that
 * grpcurl and its like need no .proto files. The set is read by hand at the first question, as a core that starts has
 * no time for it: per file its name, package and the full names of what it declares. Symbols are answered with the one
 * file that declares them; clients ask for its imports themselves. */
#include <string.h>
#include <uthash.h>

#include "core/rpc/core_rpc_internal.h"
#include "core/rpc/protobuf.h"
#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/check.h"

enum { SET_FILE = 1 };
enum { FILE_NAME = 1, FILE_PACKAGE = 2, FILE_MESSAGE = 4, FILE_ENUM = 5, FILE_SERVICE = 6, FILE_EXTENSION = 7 };
enum { ANY_NAME = 1, MESSAGE_NESTED = 3, MESSAGE_ENUM = 4, MESSAGE_EXTENSION = 6, SERVICE_METHOD = 2 };
enum {
  REQUEST_FILE_BY_NAME = 3,
  REQUEST_FILE_BY_SYMBOL = 4,
  REQUEST_FILE_BY_EXTENSION = 5,
  REQUEST_EXTENSION_NUMBERS = 6,
  REQUEST_LIST_SERVICES = 7,
};
enum {
  RESPONSE_ORIGINAL = 2,
  RESPONSE_FILES = 4,
  RESPONSE_SERVICES = 6,
  RESPONSE_ERROR = 7,
  FILES_BYTES = 1,
  SERVICES_SERVICE = 1,
  ERROR_CODE = 1,
  ERROR_MESSAGE = 2,
};
enum { NESTING_MAX = 32 };

/* A file by its name, or a declared full name by its file. */
struct reflection_entry {
  char *name;
  const uint8_t *file;
  size_t length;
  UT_hash_handle hh;
};

struct reflection_index {
  const uint8_t *set;
  size_t length;
  struct reflection_entry *files, *symbols; /* NULL: nobody has asked yet */
  struct core_rpc_method methods[2];
};

/* ---- reading the set ---- */

static void entry_add(struct reflection_entry **table, const char *name, const struct protobuf_field *file) {
  struct reflection_entry *entry;
  HASH_FIND_STR(*table, name, entry);
  if (entry != NULL)
    return;
  entry = BASE_NEW(struct reflection_entry);
  *entry = (struct reflection_entry){.name = base_strdup(name), .file = file->data, .length = file->length};
  HASH_ADD_KEYPTR(hh, *table, entry->name, strlen(entry->name), entry);
}

/* "scope.name" as an owned string; NULL when the declaration has no name. */
static char *symbol_name(const char *scope, const struct protobuf_field *declaration) {
  struct protobuf_field name;
  if (!protobuf_find_bytes(declaration->data, declaration->length, ANY_NAME, &name) || name.length > INT32_MAX)
    return NULL;
  return base_asprintf("%s%s%.*s", scope, scope[0] == '\0' ? "" : ".", (int)name.length, (const char *)name.data);
}

static bool symbol_add(struct reflection_index *index, const char *scope, const struct protobuf_field *declaration,
                       const struct protobuf_field *file) {
  char *name = symbol_name(scope, declaration);
  if (name == NULL)
    return false;
  entry_add(&index->symbols, name, file);
  base_free(name);
  return true;
}

/* A message and what it nests, or a service and its methods. */
static bool scope_add(struct reflection_index *index, const char *scope, const struct protobuf_field *declaration,
                      const struct protobuf_field *file, bool is_message, unsigned depth) {
  char *name = depth > NESTING_MAX ? NULL : symbol_name(scope, declaration);
  if (name == NULL)
    return false;
  entry_add(&index->symbols, name, file);
  struct protobuf_reader reader = {.data = declaration->data, .length = declaration->length};
  struct protobuf_field field;
  bool valid = true;
  while (valid && protobuf_next(&reader, &field)) {
    if (!field.is_bytes)
      continue;
    if (is_message && field.number == MESSAGE_NESTED)
      valid = scope_add(index, name, &field, file, true, depth + 1);
    else if (is_message ? field.number == MESSAGE_ENUM || field.number == MESSAGE_EXTENSION
                        : field.number == SERVICE_METHOD)
      valid = symbol_add(index, name, &field, file);
  }
  base_free(name);
  return valid && !reader.malformed;
}

static bool file_add(struct reflection_index *index, const struct protobuf_field *file) {
  struct protobuf_field field, name, package = {0};
  if (!protobuf_find_bytes(file->data, file->length, FILE_NAME, &name))
    return false;
  (void)protobuf_find_bytes(file->data, file->length, FILE_PACKAGE, &package);
  char *file_name = base_strndup((const char *)name.data, name.length);
  char *scope = base_strndup(package.length == 0 ? "" : (const char *)package.data, package.length);
  entry_add(&index->files, file_name, file);
  struct protobuf_reader reader = {.data = file->data, .length = file->length};
  bool valid = true;
  while (valid && protobuf_next(&reader, &field)) {
    if (!field.is_bytes)
      continue;
    if (field.number == FILE_MESSAGE || field.number == FILE_SERVICE)
      valid = scope_add(index, scope, &field, file, field.number == FILE_MESSAGE, 0);
    else if (field.number == FILE_ENUM || field.number == FILE_EXTENSION)
      valid = symbol_add(index, scope, &field, file);
  }
  base_free(file_name);
  base_free(scope);
  return valid && !reader.malformed;
}

/* False: the bytes are no set of descriptors. */
static bool index_fill(struct reflection_index *index) {
  struct protobuf_reader reader = {.data = index->set, .length = index->length};
  struct protobuf_field field;
  bool valid = true;
  while (valid && protobuf_next(&reader, &field))
    valid = field.number == SET_FILE && field.is_bytes && file_add(index, &field);
  return valid && !reader.malformed;
}

/* ---- answering ---- */

static void put_error(struct buf *response, int code, const char *message) {
  struct buf error = {0};
  protobuf_put_number(&error, ERROR_CODE, (uint64_t)code);
  protobuf_put_text(&error, ERROR_MESSAGE, message);
  protobuf_put_bytes(response, RESPONSE_ERROR, error.data, error.length);
  buf_free(&error);
}

static void put_file(struct buf *response, struct reflection_entry *table, const struct protobuf_field *name) {
  struct reflection_entry *entry = NULL;
  if (name->length > 0)
    HASH_FIND(hh, table, name->data, name->length, entry);
  if (entry == NULL) {
    put_error(response, GRPC_STATUS_NOT_FOUND, "not found");
    return;
  }
  struct buf files = {0};
  protobuf_put_bytes(&files, FILES_BYTES, entry->file, entry->length);
  protobuf_put_bytes(response, RESPONSE_FILES, files.data, files.length);
  buf_free(&files);
}

static void put_service(const char *service, size_t length, void *argument) {
  struct buf *list = argument, entry = {0};
  protobuf_put_bytes(&entry, ANY_NAME, service, length);
  protobuf_put_bytes(list, SERVICES_SERVICE, entry.data, entry.length);
  buf_free(&entry);
}

static void put_answer(struct core_rpc_loop *loop, struct buf *response, const struct protobuf_field *question) {
  struct buf list = {0};
  switch (question->number) {
  case REQUEST_FILE_BY_NAME:
    put_file(response, loop->reflection->files, question);
    break;
  case REQUEST_FILE_BY_SYMBOL:
    put_file(response, loop->reflection->symbols, question);
    break;
  case REQUEST_LIST_SERVICES:
    server_each_service(loop, put_service, &list);
    protobuf_put_bytes(response, RESPONSE_SERVICES, list.data, list.length);
    buf_free(&list);
    break;
  default: /* extensions: the contract is proto3 and has none */
    put_error(response, GRPC_STATUS_NOT_FOUND, "no extensions");
    break;
  }
}

static void reflection_on_message(struct core_rpc_call *call, const uint8_t *data, size_t length, void *user) {
  struct core_rpc_loop *loop = user;
  struct protobuf_reader reader = {.data = data, .length = length};
  struct protobuf_field field, question = {0};
  while (protobuf_next(&reader, &field))
    if (field.is_bytes && field.number >= REQUEST_FILE_BY_NAME && field.number <= REQUEST_LIST_SERVICES)
      question = field;
  if (reader.malformed || question.number == 0) {
    core_rpc_call_fail_code(call, ERR_RPC_MESSAGE_MALFORMED);
    return;
  }
  if (loop->reflection->files == NULL)
    BASE_CHECK(index_fill(loop->reflection)); /* it was made with the program */
  struct buf response = {0};
  protobuf_put_bytes(&response, RESPONSE_ORIGINAL, data, length);
  put_answer(loop, &response, &question);
  bool sent = core_rpc_call_send(call, response.data, response.length);
  buf_free(&response);
  if (sent && core_rpc_call_is_writable(call))
    core_rpc_call_read(call);
  else if (!sent && !core_rpc_call_is_cancelled(call))
    core_rpc_call_fail_code(call, ERR_RPC_IN_FLIGHT_LIMIT);
}

static void reflection_on_writable(struct core_rpc_call *call, void *user) {
  (void)user;
  core_rpc_call_read(call);
}

static void reflection_end(struct core_rpc_call *call, void *user) {
  (void)user;
  core_rpc_call_finish(call);
}

static const struct core_rpc_call_events reflection_events = {.on_message = reflection_on_message,
                                                              .on_half_close = reflection_end,
                                                              .on_writable = reflection_on_writable,
                                                              .on_drain = reflection_end,
                                                              .on_cancel = reflection_end};

static void reflection_serve(struct core_rpc_call *call, void *user) {
  core_rpc_call_events_set(call, &reflection_events, user);
  core_rpc_call_read(call);
}

/* ---- life ---- */

void core_rpc_reflection_register(struct core_rpc_loop *loop, const uint8_t *descriptor_set, size_t length) {
  loop_check(loop);
  struct reflection_index *index = loop->reflection = BASE_NEW(struct reflection_index);
  index->set = descriptor_set;
  index->length = length;
  index->methods[0] = (struct core_rpc_method){.path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                               .kind = CORE_RPC_BIDI,
                                               .handler = reflection_serve,
                                               .user = loop};
  index->methods[1] = index->methods[0];
  index->methods[1].path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  core_rpc_server_register(loop, index->methods, 2);
}

static void entries_free(struct reflection_entry **table) {
  struct reflection_entry *entry, *next;
  HASH_ITER(hh, *table, entry, next) {
    HASH_DEL(*table, entry);
    base_free(entry->name);
    base_free(entry);
  }
}

void reflection_free(struct core_rpc_loop *loop) {
  struct reflection_index *index = BASE_TAKE(loop->reflection);
  if (index == NULL)
    return;
  entries_free(&index->files);
  entries_free(&index->symbols);
  base_free(index);
}

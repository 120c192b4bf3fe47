/* rest_fuzz.c: fuzz target rest: arguments and an upstream's answer, which are anybody's bytes. The input is one byte
 * that chooses the plan, then the arguments, a NUL, and the answer. Whatever comes: the URL keeps the template's scheme
 * and authority and its number of path segments, headers hold no line breaks, and results are JSON. */
#include <stdint.h>
#include <string.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/json.h"
#include "sdk/http/http_url.h"

#define ORIGIN "http://upstream.example:8080"

static char *text(const char *value) {
  return (char *)(uintptr_t)value;
}

static size_t slashes(const char *path) {
  size_t count = 0;
  for (; *path; path++)
    count += *path == '/';
  return count;
}

static void request_check(const struct rest_request *request) {
  struct http_url url;
  BASE_CHECK(strncmp(request->url.data, ORIGIN "/", sizeof(ORIGIN)) == 0);
  BASE_CHECK(http_url_parse(request->url.data, &url, NULL));
  BASE_CHECK(strcmp(url.host, "upstream.example") == 0 && url.port == 8080 && slashes(url.path) == 2);
  http_url_clear(&url);
  for (size_t i = 0; i < request->header_count; i++)
    BASE_CHECK(http_value_is_valid(request->headers[i].value, strlen(request->headers[i].value)));
}

static void request_make(uint8_t choice, const char *arguments) {
  static const char *const methods[] = {"GET", "POST", "PUT", "DELETE"};
  static const char *const types[] = {"", "application/json", "application/x-www-form-urlencoded",
                                      "multipart/form-data"};
  core_common_v1_NameMapping query = {.argument = text("b"), .target = text("c d")};
  core_common_v1_NameMapping header = {.argument = text("h"), .target = text("X-H")};
  core_common_v1_RestPlan rest = {.method = text(methods[choice & 3]),
                                  .url_template = text(ORIGIN "/{a}/x?q={q}"),
                                  .content_type = text(types[choice >> 2 & 3]),
                                  .query_mapping_count = choice >> 4 & 1,
                                  .query_mapping = &query,
                                  .header_mapping_count = choice >> 5 & 1,
                                  .header_mapping = &header};
  core_common_v1_InvocationPlan plan = {
      .arguments_json = text(arguments), .which_call = core_common_v1_InvocationPlan_rest_tag, .call.rest = &rest};
  struct rest_request request = {0};
  struct error err = {0};
  if (rest_request_build(&plan, &request, &err))
    request_check(&request);
  else
    BASE_CHECK(error_is_set(&err));
  rest_request_clear(&request);
}

static void result_make(uint8_t choice, const char *body, size_t length) {
  static const int statuses[] = {200, 204, 400, 500};
  static const char *const types[] = {NULL, "application/json", "image/png", "application/problem+json"};
  struct rest_reply reply = {statuses[choice & 3], types[choice >> 2 & 3], body, length, choice >> 6 & 1};
  struct rest_result result;
  rest_result_make(&reply, &result);
  BASE_CHECK(json_check(result.content.data, result.content.length, JSON_DEPTH_MAX, NULL));
  BASE_CHECK(result.structured.length == 0 ||
             json_check(result.structured.data, result.structured.length, JSON_DEPTH_MAX, NULL));
  rest_result_clear(&result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  char *arguments = base_memdup(data + 1, size - 1); /* ends at the first NUL */
  size_t length = strlen(arguments);
  request_make(data[0], arguments);
  if (length + 1 < size - 1) {
    char *body = base_memdup(data + length + 2, size - length - 2);
    result_make(data[0], body, size - length - 2);
    base_free(body);
  }
  base_free(arguments);
  return 0;
}

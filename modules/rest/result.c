/* result.c: an upstream's answer made into a tool result (docs/rest.md).
 *
 * Success: 200, 201, 202, 206, and 204 without content. JSON becomes one text block of its own bytes without the white
 * space, and structured content when it is an object; images and audio become blocks of their kind; anything else is
 * text. Any other status is a tool error with the status, its words, and what the upstream itself says for people: the
 * detail, message or title of a JSON body, at most DETAIL_BYTES_MAX bytes, and nothing at all where the credential was
 * refused (ERR-3). */
#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

#define DETAIL_BYTES_MAX 512
#define TEXT_BLOCK_BYTES 64 /* what stands around a text, and some escapes */
#define NO_CONTENT_TEXT "Request completed successfully (No Content)"
#define NO_OBJECT_TEXT "The request was carried out, but its answer is not the object that this tool declares."

static const int success_statuses[] = {200, 201, 202, 204, 206};

bool rest_status_is_success(int status) {
  for (size_t i = 0; i < sizeof(success_statuses) / sizeof(success_statuses[0]); i++)
    if (success_statuses[i] == status)
      return true;
  return false;
}

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool rest_reply_is_json(const char **body, size_t *length) {
  const char *at = *body, *end = at + *length;
  if (end - at >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
    at += 3;
  while (at < end && is_space(*at))
    at++;
  while (end > at && is_space(end[-1]))
    end--;
  if (at == end || !json_check(at, (size_t)(end - at), JSON_DEPTH_MAX, NULL))
    return false;
  *body = at;
  *length = (size_t)(end - at);
  return true;
}

/* Of a string in checked JSON with its quotes: up to the first quote that no backslash escapes. */
static size_t string_length(const char *data, const char *end) {
  const char *at = data;
  size_t backslashes;
  do {
    at = memchr(at + 1, '"', (size_t)(end - at - 1));
    for (backslashes = 0; at[-1 - (ptrdiff_t)backslashes] == '\\';)
      backslashes++;
  } while (backslashes % 2);
  return (size_t)(at + 1 - data);
}

/* Checked JSON without the white space between its tokens; numbers and strings keep their bytes. */
static void json_compact(const char *data, size_t length, struct buf *out) {
  char *target = buf_reserve(out, length);
  const char *end = data + length;
  while (data < end) {
    size_t run = 1;
    if (*data == '"')
      run = string_length(data, end);
    else if (is_space(*data))
      run = 0;
    memcpy(target, data, run);
    target += run;
    data += run ? run : 1;
  }
  *target = '\0';
  out->length = (size_t)(target - out->data);
}

static void text_block(struct buf *content, const char *text, size_t length) {
  buf_reserve(content, length + length / 8 + TEXT_BLOCK_BYTES);
  buf_append_text(content, "[{\"type\":\"text\",\"text\":");
  buf_append_json_string(content, text, length);
  buf_append_text(content, "}]");
}

void rest_result_refuse(struct rest_result *result, const char *text) {
  rest_result_clear(result);
  text_block(&result->content, text, strlen(text));
  result->is_error = true;
}

void rest_result_clear(struct rest_result *result) {
  buf_free(&result->content);
  buf_free(&result->structured);
  result->is_error = false;
}

/* ---- success ---- */

static void json_result(const char *json, size_t length, bool wants_object, struct rest_result *result) {
  struct buf compact = {0};
  json_compact(json, length, &compact);
  text_block(&result->content, compact.data, compact.length);
  if (json[0] == '{') {
    result->structured = compact;
    return;
  }
  buf_free(&compact);
  if (wants_object)
    rest_result_refuse(result, NO_OBJECT_TEXT);
}

/* "image/png" of "image/png; q=1" when it is of this family and made of token characters. */
static bool media_type_take(const char *content_type, const char *family, char *target, size_t target_bytes) {
  size_t length = content_type ? strcspn(content_type, "; \t") : 0;
  size_t family_length = strlen(family);
  if (length <= family_length || length >= target_bytes || strncasecmp(content_type, family, family_length) != 0 ||
      !http_token_is_valid(content_type + family_length, length - family_length))
    return false;
  memcpy(target, content_type, length);
  target[length] = '\0';
  return true;
}

static void media_block(struct buf *content, const char *kind, const char *mime_type, const char *data, size_t length) {
  buf_printf(content, "[{\"type\":\"%s\",\"mimeType\":\"%s\",\"data\":\"", kind, mime_type);
  size_t encoded = (length + 2) / 3 * 4;
  char *target = buf_reserve(content, encoded + 1);
  EVP_EncodeBlock((unsigned char *)target, (const unsigned char *)data, (int)length);
  content->length += encoded;
  buf_append_text(content, "\"}]");
}

static void success(const struct rest_reply *reply, struct rest_result *result) {
  static const struct { const char *kind, *family; } media[] = {{"image", "image/"}, {"audio", "audio/"}};
  const char *body = reply->body;
  size_t length = reply->length;
  char mime_type[128];
  if (reply->status == 204 || length == 0) {
    if (reply->wants_object)
      rest_result_refuse(result, NO_OBJECT_TEXT);
    else
      text_block(&result->content, NO_CONTENT_TEXT, strlen(NO_CONTENT_TEXT));
    return;
  }
  if (rest_reply_is_json(&body, &length)) {
    json_result(body, length, reply->wants_object, result);
    return;
  }
  if (reply->wants_object) {
    rest_result_refuse(result, NO_OBJECT_TEXT);
    return;
  }
  for (size_t i = 0; i < sizeof(media) / sizeof(media[0]); i++) {
    if (media_type_take(reply->content_type, media[i].family, mime_type, sizeof(mime_type)) &&
        strcasecmp(mime_type, "image/svg+xml") != 0) {
      media_block(&result->content, media[i].kind, mime_type, body, length);
      return;
    }
  }
  text_block(&result->content, body, length);
}

/* ---- failure ---- */

static bool type_is_json(const char *content_type) {
  size_t length = content_type ? strcspn(content_type, "; \t") : 0;
  static const char plain[] = "application/json", suffix[] = "+json";
  return (length == sizeof(plain) - 1 && strncasecmp(content_type, plain, length) == 0) ||
         (length >= sizeof(suffix) && strncasecmp(content_type + length - 5, suffix, 5) == 0);
}

/* What a JSON error body says for people; NULL: nothing. The caller frees. */
static char *detail_find(const char *body, size_t length) {
  static const char *const names[] = {"detail", "message", "error_description", "error", "title"};
  const char *value;
  size_t value_length;
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
    if (!json_member(body, length, names[i], &value, &value_length))
      continue;
    if (value[0] == '{' && !json_member(value, value_length, "message", &value, &value_length))
      continue;
    char *text = json_string_decode(value, value_length);
    if (text && text[0])
      return text;
    base_free(text);
  }
  return NULL;
}

/* Cut at a character's border. */
static size_t detail_length(const char *text) {
  size_t length = strnlen(text, DETAIL_BYTES_MAX + 1);
  if (length <= DETAIL_BYTES_MAX)
    return length;
  length = DETAIL_BYTES_MAX;
  while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
    length--;
  return length;
}

static void failure(const struct rest_reply *reply, struct rest_result *result) {
  const char *body = reply->body;
  size_t length = reply->length;
  bool about_credentials = reply->status == 401 || reply->status == 403 || reply->status == 407;
  char *detail = NULL;
  if (!about_credentials && type_is_json(reply->content_type) && rest_reply_is_json(&body, &length))
    detail = detail_find(body, length);
  struct buf text = {0};
  buf_printf(&text, "HTTP %d %s", reply->status, http_status_reason(reply->status));
  buf_printf(&result->structured, "{\"status_code\":%d", reply->status);
  if (detail) {
    buf_append_text(&text, ": ");
    buf_append(&text, detail, detail_length(detail));
    buf_append_text(&result->structured, ",\"detail\":");
    buf_append_json_string(&result->structured, detail, detail_length(detail));
  }
  buf_append_char(&result->structured, '}');
  text_block(&result->content, text.data, text.length);
  result->is_error = true;
  buf_free(&text);
  base_free(detail);
}

void rest_result_make(const struct rest_reply *reply, struct rest_result *result) {
  *result = (struct rest_result){0};
  if (rest_status_is_success(reply->status))
    success(reply, result);
  else
    failure(reply, result);
}

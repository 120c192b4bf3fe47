/* http1_head.c: what is asked of an HTTP/1.1 header section beyond what http-parser checks. Two passes:
 * http1_head_check() looks at the raw lines before the parser sees them (bare CR, control bytes, folding, white space
 * around names, sizes), http1_head_semantics() at the parsed fields (Host, lengths, codings, versions). Everything that
 * two implementations could read differently is refused: that is what request smuggling lives on. */
#include <string.h>

#include "sdk/http/http_internal.h"

static bool refuse(struct http_refusal *refusal, int status, enum error_code code, const char *message) {
  *refusal = (struct http_refusal){status, code, message};
  return false;
}

static bool malformed(struct http_refusal *refusal, const char *message) {
  return refuse(refusal, 400, ERR_HTTP_MALFORMED, message);
}

/* "METHOD SP target SP HTTP/x.y": exactly two spaces; the parser checks the rest. */
static bool check_request_line(const struct http_server_limits *limits, const char *line, size_t length,
                               struct http_refusal *refusal) {
  const char *end = line + length;
  const char *first = memchr(line, ' ', length);
  if (first == NULL || !http_token_is_valid(line, (size_t)(first - line)))
    return malformed(refusal, "The request line is malformed.");
  const char *second = memchr(first + 1, ' ', (size_t)(end - first - 1));
  if (second == NULL || second == first + 1)
    return malformed(refusal, "The request line is malformed.");
  if ((size_t)(second - first - 1) > limits->uri_bytes_max)
    return refuse(refusal, 414, ERR_HTTP_URI_TOO_LONG, NULL);
  if (end - second != 9 || memcmp(second, " HTTP/", 6) != 0 || second[7] != '.')
    return malformed(refusal, "The request line is malformed.");
  if (second[6] != '1')
    return refuse(refusal, 505, ERR_HTTP_VERSION_UNSUPPORTED, NULL);
  if (first - line == 7 && memcmp(line, "CONNECT", 7) == 0)
    return refuse(refusal, 501, ERR_HTTP_METHOD_UNSUPPORTED, NULL);
  return true;
}

static bool check_field_line(const struct http_server_limits *limits, const char *line, size_t length,
                             struct http_refusal *refusal) {
  if (length > limits->header_field_bytes_max)
    return refuse(refusal, 431, ERR_HTTP_HEADER_TOO_LARGE, NULL);
  if (line[0] == ' ' || line[0] == '\t')
    return malformed(refusal, "Folded header fields are not accepted.");
  const char *colon = memchr(line, ':', length);
  if (colon == NULL || !http_token_is_valid(line, (size_t)(colon - line)))
    return malformed(refusal, "A header field's name is malformed.");
  if (!http_value_is_valid(colon + 1, (size_t)(line + length - colon - 1)))
    return malformed(refusal, "A header field's value holds a control character.");
  return true;
}

/* head: the section with its final empty line; every LF in it is known to follow a CR. */
bool http1_head_check(const struct http_server_limits *limits, const char *head, size_t length,
                      struct http_refusal *refusal) {
  const char *end = head + length - 2;
  size_t fields = 0;
  for (const char *line = head; line < end;) {
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    if (stop == NULL)
      return malformed(refusal, "The header section is malformed.");
    size_t line_bytes = (size_t)(stop - 1 - line);
    if (line == head ? !check_request_line(limits, line, line_bytes, refusal)
                     : !check_field_line(limits, line, line_bytes, refusal))
      return false;
    if (line != head && ++fields > limits->header_count_max)
      return refuse(refusal, 431, ERR_HTTP_HEADER_TOO_LARGE, NULL);
    line = stop + 1;
  }
  return true;
}

static bool check_host(struct http_request *request, const struct http1_facts *facts, struct http_refusal *refusal) {
  size_t index = 0;
  const char *host = http_request_header_next(request, "host", &index);
  if (host == NULL && facts->http_minor >= 1)
    return malformed(refusal, "The Host field is missing.");
  if (host != NULL && http_request_header_next(request, "host", &index) != NULL)
    return malformed(refusal, "The Host field is there more than once.");
  if (host != NULL && !target_host_is_valid(host))
    return malformed(refusal, "The Host field is malformed.");
  request->host = host != NULL ? host : "";
  return true;
}

static bool check_framing(struct http_request *request, const struct http1_facts *facts, struct http_refusal *refusal) {
  size_t index = 0;
  const char *coding = http_request_header_next(request, "transfer-encoding", &index);
  if (coding != NULL) {
    if (facts->http_minor == 0)
      return malformed(refusal, "HTTP/1.0 knows no Transfer-Encoding.");
    if (http_request_header(request, "content-length") != NULL)
      return malformed(refusal, "Transfer-Encoding and Content-Length exclude each other.");
    if (http_request_header_next(request, "transfer-encoding", &index) != NULL)
      return malformed(refusal, "The Transfer-Encoding field is there more than once.");
    if (strcasecmp(coding, "chunked") != 0)
      return refuse(refusal, 501, ERR_HTTP_CODING_UNSUPPORTED, NULL);
  }
  index = 0;
  const char *text = http_request_header_next(request, "content-length", &index);
  uint64_t length;
  if (text != NULL && (!str_parse_u64(text, &length) || text[0] < '0' || text[0] > '9' ||
                       http_request_header_next(request, "content-length", &index) != NULL))
    return malformed(refusal, "The Content-Length field is malformed.");
  return true;
}

bool http1_head_semantics(struct http_request *request, const struct http1_facts *facts, struct http_refusal *refusal) {
  if (!check_host(request, facts, refusal) || !check_framing(request, facts, refusal))
    return false;
  const char *expect = http_request_header(request, "expect");
  if (expect != NULL && strcasecmp(expect, "100-continue") != 0)
    return refuse(refusal, 417, ERR_HTTP_EXPECTATION, NULL);
  return true;
}

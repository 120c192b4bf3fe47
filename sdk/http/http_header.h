/* http_header.h: a header field as the server's and the client's public functions take it. Names are compared without
 * regard to case. The text belongs to the caller and is copied by the function that takes it. */
#ifndef GATEHOUSE_HTTP_HEADER_H
#define GATEHOUSE_HTTP_HEADER_H

#include <stdbool.h>
#include <stddef.h>

struct http_header {
  const char *name;
  const char *value;
};

/* True when text is a token of RFC 9110 (a field name, a method): 1*tchar. Any thread. */
bool http_token_is_valid(const char *text, size_t length);

/* True when text may be a field value: no control characters but HTAB, no DEL; bytes from 0x80 are allowed. */
bool http_value_is_valid(const char *text, size_t length);

/* The reason phrase of a status ("Not Found"); "Unnamed" for one without. Static; any thread. */
const char *http_status_reason(int status);

#endif

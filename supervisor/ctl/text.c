/* text.c: text for terminals: made safe, measured in columns; durations, sizes and times as people read them. */
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

#include "sdk/base/clock.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

#define DURATION_MAX_MS (UINT64_C(100) * 366 * 24 * 3600 * 1000)

/* Length of the valid UTF-8 character at text, 0 when there is none; *point is its code point. */
static size_t character_at(const char *text, size_t length, uint32_t *point) {
  unsigned char first = (unsigned char)*text;
  size_t size = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (size > length || !str_is_utf8(text, size))
    return 0;
  *point = size == 1 ? first : first & (0xFFu >> (size + 1));
  for (size_t i = 1; i < size; i++)
    *point = (*point << 6) | ((unsigned char)text[i] & 0x3Fu);
  return size;
}

/* C0, DEL, C1, line separators, and the marks that turn the direction of writing: an answer must not rearrange what
 * stands beside it. */
static bool is_control(uint32_t point) {
  return point < 0x20 || (point >= 0x7F && point < 0xA0) || (point >= 0x2028 && point <= 0x202E) ||
         (point >= 0x2066 && point <= 0x2069) || point == 0x200E || point == 0x200F || point == 0xFEFF;
}

void ctl_text_append_safe(struct buf *target, const char *text, size_t length) {
  for (size_t at = 0; at < length;) {
    uint32_t point = 0;
    size_t size = character_at(text + at, length - at, &point);
    if (size == 0)
      buf_append_text(target, "\xEF\xBF\xBD");
    else if (point == '\n' || point == '\t' || point == '\r')
      buf_append_char(target, ' ');
    else if (is_control(point))
      buf_append_char(target, '?');
    else
      buf_append(target, text + at, size);
    at += size ? size : 1;
  }
}

/* wcwidth() knows the characters of the locale; C.UTF-8 is there on every Debian. */
static int columns_of(uint32_t point) {
  static locale_t utf8;
  if (!utf8)
    utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
  if (point < 0x80 || !utf8)
    return 1;
  locale_t before = uselocale(utf8);
  int columns = wcwidth((wchar_t)point);
  uselocale(before);
  return columns < 0 ? 1 : columns;
}

size_t ctl_text_columns(const char *text, size_t length) {
  size_t columns = 0;
  for (size_t at = 0; at < length;) {
    uint32_t point = 0;
    size_t size = character_at(text + at, length - at, &point);
    columns += size ? (size_t)columns_of(point) : 1;
    at += size ? size : 1;
  }
  return columns;
}

void ctl_duration_format(uint64_t ms, char target[static 32]) {
  unsigned long long seconds = ms / 1000, minutes = seconds / 60, hours = minutes / 60, days = hours / 24;
  if (ms < 1000)
    snprintf(target, 32, "%llums", (unsigned long long)ms);
  else if (seconds < 60)
    snprintf(target, 32, "%llus", seconds);
  else if (minutes < 60)
    snprintf(target, 32, "%llum%02llus", minutes, seconds % 60);
  else if (hours < 24)
    snprintf(target, 32, "%lluh%02llum", hours, minutes % 60);
  else
    snprintf(target, 32, "%llud%02lluh", days, hours % 24);
}

void ctl_bytes_format(uint64_t bytes, char target[static 32]) {
  static const char units[] = "KMGTPE";
  if (bytes < 1024) {
    snprintf(target, 32, "%lluB", (unsigned long long)bytes);
    return;
  }
  double value = (double)bytes / 1024;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < sizeof(units) - 1) {
    value /= 1024;
    unit++;
  }
  snprintf(target, 32, value < 99.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

bool ctl_duration_parse(const char *text, uint64_t *ms) {
  static const struct {
    const char *name;
    uint64_t ms;
  } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 24 * 3600 * 1000}};
  uint64_t total = 0;
  if (!*text)
    return false;
  while (*text) {
    char digits[21];
    size_t count = strspn(text, "0123456789"), letters = strspn(text + count, "msdh");
    uint64_t number, factor = 0, part;
    if (count == 0 || count >= sizeof(digits))
      return false;
    memcpy(digits, text, count);
    digits[count] = '\0';
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
      if (strlen(units[i].name) == letters && memcmp(units[i].name, text + count, letters) == 0)
        factor = units[i].ms;
    if (letters == 0 && text[count] == '\0' && total == 0)
      factor = 1000;
    if (!factor || !str_parse_u64(digits, &number) || __builtin_mul_overflow(number, factor, &part) ||
        __builtin_add_overflow(total, part, &total) || total > DURATION_MAX_MS)
      return false;
    text += count + letters;
  }
  *ms = total;
  return true;
}

void ctl_time_format(int64_t wall_ms, char target[static 32]) {
  char full[CLOCK_RFC3339_BYTES];
  int64_t wall_us;
  if (wall_ms == 0 || __builtin_mul_overflow(wall_ms, 1000, &wall_us)) {
    str_copy(target, 32, "-");
    return;
  }
  clock_format_rfc3339(wall_us, full);
  full[10] = ' ';
  full[19] = '\0';
  str_copy(target, 32, full);
}

/* clock.c: time. The calendar is computed here, not by gmtime_r, which takes libc's time zone lock. */
#include "sdk/base/clock.h"

#include <stdio.h>
#include <time.h>

#include "sdk/base/check.h"

#define US_PER_S INT64_C(1000000)
#define S_PER_DAY INT64_C(86400)
#define WALL_MAX_US (INT64_C(253402300800) * US_PER_S - 1) /* 9999-12-31T23:59:59.999999Z */
#define WALL_MIN_US (INT64_C(-62167219200) * US_PER_S)     /* 0000-01-01T00:00:00Z */

static int64_t clock_us(clockid_t id) {
  struct timespec now;
  BASE_CHECK(clock_gettime(id, &now) == 0);
  return (int64_t)now.tv_sec * US_PER_S + now.tv_nsec / 1000;
}

int64_t clock_monotonic_us(void) {
  return clock_us(CLOCK_MONOTONIC);
}

int64_t clock_monotonic_ms(void) {
  return clock_monotonic_us() / 1000;
}

int64_t clock_wall_us(void) {
  return clock_us(CLOCK_REALTIME);
}

int64_t clock_wall_ms(void) {
  return clock_wall_us() / 1000;
}

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar; years start in March, so that leap days come
 * last. */
static int64_t days_from_date(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2;
  int64_t era = (year >= 0 ? year : year - 399) / 400;
  int64_t year_of_era = year - era * 400;
  int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void date_from_days(int64_t days, int *year, int *month, int *day) {
  days += 719468;
  int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  int64_t day_of_era = days - era * 146097;
  int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  int64_t shifted_month = (5 * day_of_year + 2) / 153;
  *day = (int)(day_of_year - (153 * shifted_month + 2) / 5 + 1);
  *month = (int)(shifted_month < 10 ? shifted_month + 3 : shifted_month - 9);
  *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

static char *put_digits(char *out, int value, int width) {
  for (int i = width - 1; i >= 0; i--, value /= 10)
    out[i] = (char)('0' + value % 10);
  return out + width;
}

void clock_format_rfc3339(int64_t wall_us, char target[static CLOCK_RFC3339_BYTES]) {
  if (wall_us < WALL_MIN_US)
    wall_us = WALL_MIN_US;
  if (wall_us > WALL_MAX_US)
    wall_us = WALL_MAX_US;
  int64_t micros = wall_us % US_PER_S, seconds = wall_us / US_PER_S;
  if (micros < 0) {
    micros += US_PER_S;
    seconds--;
  }
  int64_t of_day = seconds % S_PER_DAY, days = seconds / S_PER_DAY;
  if (of_day < 0) {
    of_day += S_PER_DAY;
    days--;
  }
  int year, month, day;
  date_from_days(days, &year, &month, &day);
  char *out = put_digits(target, year, 4);
  *out++ = '-';
  out = put_digits(out, month, 2);
  *out++ = '-';
  out = put_digits(out, day, 2);
  *out++ = 'T';
  out = put_digits(out, (int)(of_day / 3600), 2);
  *out++ = ':';
  out = put_digits(out, (int)(of_day / 60 % 60), 2);
  *out++ = ':';
  out = put_digits(out, (int)(of_day % 60), 2);
  *out++ = '.';
  out = put_digits(out, (int)micros, 6);
  *out++ = 'Z';
  *out = 0;
}

/* Reads exactly `width` digits and steps over them; -1 when there are none. */
static int take_digits(const char **text, int width) {
  int value = 0;
  for (int i = 0; i < width; i++, (*text)++) {
    if (**text < '0' || **text > '9')
      return -1;
    value = value * 10 + (**text - '0');
  }
  return value;
}

static bool take_char(const char **text, char expected) {
  if ((**text | 0x20) != (expected | 0x20))
    return false;
  (*text)++;
  return true;
}

bool clock_parse_rfc3339(const char *text, int64_t *wall_us) {
  static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (!text)
    return false;
  int year = take_digits(&text, 4);
  if (year < 0 || *text++ != '-')
    return false;
  int month = take_digits(&text, 2);
  if (month < 1 || month > 12 || *text++ != '-')
    return false;
  int day = take_digits(&text, 2);
  bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  if (day < 1 || day > month_days[month - 1] + (leap && month == 2) || !take_char(&text, 'T'))
    return false;
  int hour = take_digits(&text, 2);
  if (hour < 0 || hour > 23 || *text++ != ':')
    return false;
  int minute = take_digits(&text, 2);
  if (minute < 0 || minute > 59 || *text++ != ':')
    return false;
  int second = take_digits(&text, 2);
  if (second < 0 || second > 59)
    return false;
  int64_t micros = 0;
  if (*text == '.') {
    int digits = 0;
    for (text++; *text >= '0' && *text <= '9'; text++, digits++)
      if (digits < 6)
        micros = micros * 10 + (*text - '0');
    if (digits == 0)
      return false;
    for (; digits < 6; digits++)
      micros *= 10;
  }
  int64_t offset_s = 0;
  if (*text == '+' || *text == '-') {
    int sign = *text++ == '-' ? -1 : 1;
    int offset_hours = take_digits(&text, 2);
    if (offset_hours < 0 || offset_hours > 23 || *text++ != ':')
      return false;
    int offset_minutes = take_digits(&text, 2);
    if (offset_minutes < 0 || offset_minutes > 59)
      return false;
    offset_s = sign * (offset_hours * 3600 + offset_minutes * 60);
  } else if (!take_char(&text, 'Z')) {
    return false;
  }
  if (*text)
    return false;
  int64_t seconds = days_from_date(year, month, day) * S_PER_DAY + hour * 3600 + minute * 60 + second - offset_s;
  *wall_us = seconds * US_PER_S + micros;
  return true;
}

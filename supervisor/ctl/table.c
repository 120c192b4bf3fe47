/* table.c: aligned tables. Columns are as wide as their widest cell; only the last one is cut, and only on a terminal,
 * so that what is piped elsewhere is complete. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

#define GAP 2

struct cell {
  char *text;
  size_t length, columns;
  enum ctl_colour colour;
};

struct ctl_table {
  size_t columns;
  size_t count; /* of cells, the heads included */
  struct cell *cells;
};

struct ctl_table *ctl_table_create(const char *const *heads, size_t columns) {
  struct ctl_table *table = BASE_NEW(struct ctl_table);
  table->columns = columns;
  for (size_t i = 0; i < columns; i++)
    ctl_table_cell(table, heads[i]);
  return table;
}

void ctl_table_cell_coloured(struct ctl_table *table, const char *text, enum ctl_colour colour) {
  struct buf safe = {0};
  const char *shown = str_is_empty(text) ? "-" : text;
  ctl_text_append_safe(&safe, shown, strlen(shown));
  if ((table->count & (table->count - 1)) == 0)
    table->cells = base_realloc_array(table->cells, table->count ? 2 * table->count : 1, sizeof(struct cell));
  size_t length = safe.length, columns = ctl_text_columns(safe.data, safe.length);
  table->cells[table->count++] = (struct cell){buf_take(&safe), length, columns, colour};
}

void ctl_table_cell(struct ctl_table *table, const char *text) {
  ctl_table_cell_coloured(table, text, CTL_COLOUR_NONE);
}

void ctl_table_cell_number(struct ctl_table *table, uint64_t number) {
  char text[24];
  struct buf digits = {0};
  buf_printf(&digits, "%llu", (unsigned long long)number);
  str_copy(text, sizeof(text), digits.data);
  buf_free(&digits);
  ctl_table_cell(table, text);
}

/* As much of the cell as fits in so many columns, with an ellipsis when something is missing. */
static void write_cut(const struct cell *cell, size_t columns, struct buf *target) {
  size_t length = 0, used = 0;
  if (cell->columns <= columns) {
    buf_append(target, cell->text, cell->length);
    return;
  }
  while (length < cell->length) {
    size_t size = 1;
    while (length + size < cell->length && ((unsigned char)cell->text[length + size] & 0xC0) == 0x80)
      size++;
    size_t wide = ctl_text_columns(cell->text + length, size);
    if (used + wide + 1 > columns)
      break;
    used += wide;
    length += size;
  }
  buf_append(target, cell->text, length);
  buf_append_text(target, "\xE2\x80\xA6");
}

static void write_row(const struct ctl_table *table, size_t row, const size_t *widths, size_t width, bool colours,
                      struct buf *target) {
  static const char *const sequences[] = {"", "\033[32m", "\033[33m", "\033[31m"};
  size_t used = 0;
  for (size_t i = 0; i < table->columns; i++) {
    const struct cell *cell = &table->cells[row * table->columns + i];
    bool last = i + 1 == table->columns, coloured = colours && cell->colour != CTL_COLOUR_NONE;
    if (coloured)
      buf_append_text(target, sequences[cell->colour]);
    write_cut(cell, last && width > used + GAP ? width - used : SIZE_MAX, target);
    if (coloured)
      buf_append_text(target, "\033[0m");
    if (!last)
      buf_printf(target, "%*s", (int)(widths[i] - cell->columns + GAP), "");
    used += widths[i] + GAP;
  }
  buf_append_char(target, '\n');
}

void ctl_table_write(const struct ctl_table *table, size_t width, bool colours, struct buf *target) {
  size_t *widths = base_calloc(table->columns, sizeof(size_t));
  for (size_t i = 0; i < table->count; i++)
    if (table->cells[i].columns > widths[i % table->columns])
      widths[i % table->columns] = table->cells[i].columns;
  for (size_t row = 0; row < table->count / table->columns; row++)
    write_row(table, row, widths, width, colours, target);
  base_free(widths);
}

void ctl_table_free(struct ctl_table **table) {
  if (!*table)
    return;
  for (size_t i = 0; i < (*table)->count; i++)
    base_free((*table)->cells[i].text);
  base_free((*table)->cells);
  base_free(*table);
  *table = NULL;
}

size_t ctl_terminal_width(void) {
  struct winsize size;
  return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/* https://no-color.org */
bool ctl_terminal_colours(void) {
  const char *terminal = getenv("TERM");
  return isatty(STDOUT_FILENO) && str_is_empty(getenv("NO_COLOR")) && !str_equal(terminal, "dumb");
}

void ctl_table_finish(struct ctl_table **table, struct buf *target) {
  ctl_table_write(*table, ctl_terminal_width(), ctl_terminal_colours(), target);
  ctl_table_free(table);
}

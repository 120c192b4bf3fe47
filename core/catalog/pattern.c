/* pattern.c: regular expressions of "pattern" and "patternProperties", matched in time linear in the text (a Thompson
 * automaton stepped character by character), because both the expression and the text may come from somebody hostile.
 *
 * Understood: literals, ".", classes with ranges, \d \D \w \W \s \S \t \n \r \f \v \0 \xHH \uHHHH \u{H…}, \b \B, ^ $,
 * groups (plain, non-capturing, named), alternation, * + ? {n} {n,} {n,m}, lazy forms (the same here). Refused:
 * look-around, back-references, \p. The set is that of ECMA-262 with the u flag as far as it goes. */
#include <string.h>

#include "core/catalog/schema_internal.h"

#define REPEAT_MAX 1000u
#define GROUP_DEPTH_MAX 32u
#define ALTERNATIVES_MAX 512 /* of one group */
#define PATTERN_MAX_BYTES 2048u

enum opcode { OP_CHARACTER, OP_ANY, OP_CLASS, OP_SPLIT, OP_JUMP, OP_BEGIN, OP_END, OP_BOUNDARY, OP_INSIDE, OP_MATCH };

struct range {
  uint32_t low, high;
};
struct class {
  struct range *ranges;
  size_t count;
  bool negated;
};
struct instruction {
  enum opcode op;
  uint32_t character;
  size_t x, y; /* targets; x: class for OP_CLASS */
};
struct schema_pattern {
  struct instruction *program;
  size_t length;
  struct class *classes;
  size_t class_count;
};

struct parser {
  struct schema_pattern *pattern;
  const char *at, *end;
  unsigned depth;
  const char *why;
};

static bool fail(struct parser *parser, const char *why) {
  if (!parser->why)
    parser->why = why;
  return false;
}

static bool emit(struct parser *parser, struct instruction instruction) {
  struct schema_pattern *pattern = parser->pattern;
  if (pattern->length == SCHEMA_PATTERN_INSTRUCTIONS_MAX)
    return fail(parser, "the pattern is too large");
  if ((pattern->length & (pattern->length - 1)) == 0)
    pattern->program =
        base_realloc_array(pattern->program, pattern->length ? 2 * pattern->length : 1, sizeof(*pattern->program));
  pattern->program[pattern->length++] = instruction;
  return true;
}

/* One character of UTF-8 that was checked before. */
static uint32_t character_next(const char **at, const char *end) {
  const unsigned char *s = (const unsigned char *)*at;
  unsigned more = s[0] < 0x80 ? 0 : s[0] < 0xe0 ? 1 : s[0] < 0xf0 ? 2 : 3;
  uint32_t character = more == 0 ? s[0] : s[0] & (0x3fu >> more);
  for (unsigned i = 1; i <= more && (const char *)s + i < end; i++)
    character = character << 6 | (s[i] & 0x3fu);
  *at = (size_t)(end - *at) > more ? *at + more + 1 : end;
  return character;
}

/* ---- classes ---- */

static void class_add(struct class *class, uint32_t low, uint32_t high) {
  class->ranges = base_realloc_array(class->ranges, class->count + 1, sizeof(*class->ranges));
  class->ranges[class->count++] = (struct range){low, high};
}

static const struct {
  char letter;
  struct range ranges[12];
  size_t count;
} named_classes[] = {
    {'d', {{'0', '9'}}, 1},
    {'w', {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, 4},
    {'s',
     {{9, 13},
      {32, 32},
      {0xa0, 0xa0},
      {0x1680, 0x1680},
      {0x2000, 0x200a},
      {0x2028, 0x2029},
      {0x202f, 0x202f},
      {0x205f, 0x205f},
      {0x3000, 0x3000},
      {0xfeff, 0xfeff}},
     10},
};

/* Adds \d, \W, …; false: the letter names no class. */
static bool class_add_named(struct class *class, char letter) {
  for (size_t i = 0; i < sizeof(named_classes) / sizeof(named_classes[0]); i++) {
    uint32_t from = 0;
    if ((letter | 0x20) != named_classes[i].letter)
      continue;
    for (size_t k = 0; k < named_classes[i].count; k++) {
      struct range range = named_classes[i].ranges[k];
      if (letter & 0x20)
        class_add(class, range.low, range.high);
      else if (range.low > from)
        class_add(class, from, range.low - 1);
      from = range.high + 1;
    }
    if (!(letter & 0x20))
      class_add(class, from, 0x10ffff);
    return true;
  }
  return false;
}

static bool class_has(const struct class *class, uint32_t character) {
  for (size_t i = 0; i < class->count; i++)
    if (character >= class->ranges[i].low && character <= class->ranges[i].high)
      return !class->negated;
  return class->negated;
}

static struct class *class_new(struct parser *parser) {
  struct schema_pattern *pattern = parser->pattern;
  pattern->classes = base_realloc_array(pattern->classes, pattern->class_count + 1, sizeof(*pattern->classes));
  pattern->classes[pattern->class_count] = (struct class){0};
  return &pattern->classes[pattern->class_count++];
}

/* ---- escapes ---- */

static bool hex_read(struct parser *parser, unsigned digits, uint32_t *character) {
  *character = 0;
  for (unsigned i = 0; i < digits; i++, parser->at++) {
    const char *hex = "0123456789abcdef";
    const char *digit = parser->at < parser->end && *parser->at ? strchr(hex, *parser->at | 0x20) : NULL;
    if (!digit || *parser->at < '0')
      return fail(parser, "an escape is malformed");
    *character = *character << 4 | (uint32_t)(digit - hex);
  }
  return true;
}

static bool braced_read(struct parser *parser, uint32_t *character) {
  *character = 0;
  for (parser->at++; parser->at < parser->end && *parser->at != '}';) {
    uint32_t digit;
    if (!hex_read(parser, 1, &digit))
      return false;
    *character = *character << 4 | digit;
    if (*character > 0x10ffff)
      return fail(parser, "an escape is malformed");
  }
  return parser->at++ < parser->end || fail(parser, "an escape is malformed");
}

/* The character that an escape means; the backslash was read. */
static bool escape_read(struct parser *parser, uint32_t *character) {
  static const char from[] = "tnrfv0", to[] = "\t\n\r\f\v\0";
  if (parser->at == parser->end)
    return fail(parser, "it ends with a backslash");
  const char *known = *parser->at ? strchr(from, *parser->at) : NULL;
  if (known) {
    *character = (uint32_t)to[known - from];
    parser->at++;
    return true;
  }
  if (*parser->at == 'x' || *parser->at == 'u') {
    unsigned digits = *parser->at++ == 'x' ? 2 : 4;
    return digits == 4 && parser->at < parser->end && *parser->at == '{' ? braced_read(parser, character)
                                                                         : hex_read(parser, digits, character);
  }
  if ((*parser->at >= '1' && *parser->at <= '9') || *parser->at == 'k')
    return fail(parser, "back-references are not supported");
  if ((*parser->at | 0x20) >= 'a' && (*parser->at | 0x20) <= 'z')
    return fail(parser, "an escape is not supported");
  *character = character_next(&parser->at, parser->end);
  return true;
}

static bool class_character(struct parser *parser, uint32_t *character) {
  if (*parser->at != '\\') {
    *character = character_next(&parser->at, parser->end);
    return true;
  }
  parser->at++;
  if (parser->at < parser->end && *parser->at == 'b') {
    parser->at++;
    *character = '\b';
    return true;
  }
  return escape_read(parser, character);
}

/* "[…]"; the bracket was read. */
static bool class_parse(struct parser *parser) {
  struct class *class = class_new(parser);
  size_t index = parser->pattern->class_count - 1;
  if (parser->at < parser->end && *parser->at == '^') {
    class->negated = true;
    parser->at++;
  }
  while (parser->at < parser->end && *parser->at != ']') {
    uint32_t low, high;
    if (*parser->at == '\\' && parser->at + 1 < parser->end && class_add_named(class, parser->at[1])) {
      parser->at += 2;
      continue;
    }
    if (!class_character(parser, &low))
      return false;
    high = low;
    if (parser->end - parser->at >= 2 && *parser->at == '-' && parser->at[1] != ']') {
      parser->at++;
      if (!class_character(parser, &high))
        return false;
      if (high < low)
        return fail(parser, "a range is upside down");
    }
    class_add(class, low, high);
  }
  if (parser->at == parser->end)
    return fail(parser, "a class is not closed");
  parser->at++;
  return emit(parser, (struct instruction){.op = OP_CLASS, .x = index});
}

/* ---- expressions ---- */

static bool alternatives_parse(struct parser *parser);

static bool group_parse(struct parser *parser) {
  if (++parser->depth > GROUP_DEPTH_MAX)
    return fail(parser, "groups are nested too deeply");
  if (parser->at < parser->end && *parser->at == '?') {
    size_t left = (size_t)(parser->end - parser->at);
    if (left >= 2 && parser->at[1] == ':') {
      parser->at += 2;
    } else if (left >= 4 && parser->at[1] == '<' && parser->at[2] != '=' && parser->at[2] != '!') {
      const char *close = memchr(parser->at, '>', left);
      if (!close)
        return fail(parser, "a group is malformed");
      parser->at = close + 1;
    } else {
      return fail(parser, "look-around is not supported");
    }
  }
  if (!alternatives_parse(parser))
    return false;
  if (parser->at == parser->end || *parser->at != ')')
    return fail(parser, "a group is not closed");
  parser->at++;
  parser->depth--;
  return true;
}

static bool escape_parse(struct parser *parser) {
  uint32_t character;
  char letter = parser->at < parser->end ? *parser->at : '\0';
  if (letter == 'b' || letter == 'B') {
    parser->at++;
    return emit(parser, (struct instruction){.op = letter == 'b' ? OP_BOUNDARY : OP_INSIDE});
  }
  struct class class = {0};
  if (class_add_named(&class, letter)) {
    *class_new(parser) = class;
    parser->at++;
    return emit(parser, (struct instruction){.op = OP_CLASS, .x = parser->pattern->class_count - 1});
  }
  return escape_read(parser, &character) &&
         emit(parser, (struct instruction){.op = OP_CHARACTER, .character = character});
}

static bool atom_parse(struct parser *parser) {
  switch (*parser->at) {
  case '(':
    parser->at++;
    return group_parse(parser);
  case '[':
    parser->at++;
    return class_parse(parser);
  case '.':
    parser->at++;
    return emit(parser, (struct instruction){.op = OP_ANY});
  case '^':
    parser->at++;
    return emit(parser, (struct instruction){.op = OP_BEGIN});
  case '$':
    parser->at++;
    return emit(parser, (struct instruction){.op = OP_END});
  case '\\':
    parser->at++;
    return escape_parse(parser);
  case '*':
  case '+':
  case '?':
    return fail(parser, "nothing to repeat");
  default:
    return emit(parser,
                (struct instruction){.op = OP_CHARACTER, .character = character_next(&parser->at, parser->end)});
  }
}

static bool number_parse(const char **at, const char *end, unsigned *number) {
  const char *begin = *at;
  for (*number = 0; *at < end && **at >= '0' && **at <= '9'; ++*at)
    if (*number <= REPEAT_MAX)
      *number = *number * 10 + (unsigned)(**at - '0');
  return *at > begin;
}

#define UNBOUNDED UINT32_MAX

/* {n}, {n,}, {n,m}; a brace that is none of these stands for itself. */
static bool braces_parse(struct parser *parser, unsigned *low, unsigned *high) {
  const char *at = parser->at + 1;
  if (!number_parse(&at, parser->end, low))
    return false;
  *high = *low;
  if (at < parser->end && *at == ',') {
    at++;
    if (!number_parse(&at, parser->end, high))
      *high = UNBOUNDED;
  }
  if (at == parser->end || *at != '}')
    return false;
  parser->at = at + 1;
  return true;
}

/* Appends a copy of program[from, from + count); targets inside move with it. */
static bool repeat_copy(struct parser *parser, size_t from, size_t count) {
  size_t shift = parser->pattern->length - from;
  for (size_t i = 0; i < count; i++) {
    struct instruction copy = parser->pattern->program[from + i];
    if (copy.op == OP_SPLIT || copy.op == OP_JUMP)
      copy.x += shift, copy.y += shift;
    if (!emit(parser, copy))
      return false;
  }
  return true;
}

static bool insert_split(struct parser *parser, size_t at) {
  if (!emit(parser, (struct instruction){.op = OP_SPLIT}))
    return false;
  struct instruction *program = parser->pattern->program;
  memmove(&program[at + 1], &program[at], (parser->pattern->length - 1 - at) * sizeof(*program));
  for (size_t i = at + 1; i < parser->pattern->length; i++)
    if (program[i].op == OP_SPLIT || program[i].op == OP_JUMP)
      program[i].x++, program[i].y++;
  program[at] = (struct instruction){.op = OP_SPLIT, .x = at + 1};
  return true;
}

/* Makes the fragment that begins at from optional, or repeatable without end. */
static bool loosen(struct parser *parser, size_t from, bool endless) {
  if (!insert_split(parser, from))
    return false;
  if (endless && !emit(parser, (struct instruction){.op = OP_JUMP, .x = from}))
    return false;
  parser->pattern->program[from].y = parser->pattern->length;
  return true;
}

static bool repeat_build(struct parser *parser, size_t from, unsigned low, unsigned high) {
  size_t count = parser->pattern->length - from;
  if (low > REPEAT_MAX || (high != UNBOUNDED && (high > REPEAT_MAX || high < low)))
    return fail(parser, "a repetition is too large or upside down");
  if (high == 0) {
    parser->pattern->length = from;
    return true;
  }
  /* low copies, then optional ones; the first stands there already */
  size_t template = from;
  for (unsigned i = 1; i < low; i++)
    if (!repeat_copy(parser, template, count))
      return false;
  if (high == UNBOUNDED) {
    size_t last = parser->pattern->length;
    if (low == 0)
      return loosen(parser, from, true);
    return repeat_copy(parser, template, count) && loosen(parser, last, true);
  }
  /* The optional ones are copied before any is loosened: loosening moves what stands behind it. */
  size_t optional = low == 0 ? from : parser->pattern->length;
  for (unsigned i = low == 0 ? 1 : low; i < high; i++)
    if (!repeat_copy(parser, template, count))
      return false;
  size_t times = high - low;
  for (size_t i = times; i-- > 0;)
    if (!loosen(parser, optional + i * count, false))
      return false;
  return true;
}

static bool piece_parse(struct parser *parser) {
  size_t from = parser->pattern->length;
  unsigned low, high;
  if (!atom_parse(parser))
    return false;
  if (parser->at == parser->end)
    return true;
  switch (*parser->at) {
  case '*':
    low = 0, high = UNBOUNDED;
    parser->at++;
    break;
  case '+':
    low = 1, high = UNBOUNDED;
    parser->at++;
    break;
  case '?':
    low = 0, high = 1;
    parser->at++;
    break;
  case '{':
    if (!braces_parse(parser, &low, &high))
      return true;
    break;
  default:
    return true;
  }
  if (parser->at < parser->end && *parser->at == '?')
    parser->at++; /* lazy: the same question */
  return repeat_build(parser, from, low, high);
}

static bool alternatives_parse(struct parser *parser) {
  size_t from = parser->pattern->length, jumps[ALTERNATIVES_MAX], jump_count = 0;
  for (;;) {
    while (parser->at < parser->end && *parser->at != '|' && *parser->at != ')')
      if (!piece_parse(parser))
        return false;
    if (parser->at == parser->end || *parser->at != '|')
      break;
    parser->at++;
    if (jump_count == ALTERNATIVES_MAX)
      return fail(parser, "too many alternatives");
    /* [split][alternative][jump to the end] next… */
    if (!insert_split(parser, from) || !emit(parser, (struct instruction){.op = OP_JUMP}))
      return false;
    jumps[jump_count++] = parser->pattern->length - 1;
    parser->pattern->program[from].y = parser->pattern->length;
    from = parser->pattern->length;
  }
  for (size_t i = 0; i < jump_count; i++)
    parser->pattern->program[jumps[i]].x = parser->pattern->length;
  return true;
}

struct schema_pattern *schema_pattern_compile(const char *text, size_t length, const char **why) {
  struct parser parser = {.at = text, .end = text + length, .pattern = BASE_NEW(struct schema_pattern)};
  bool ok = length <= PATTERN_MAX_BYTES || fail(&parser, "the pattern is too large");
  ok = ok && alternatives_parse(&parser) &&
       (parser.at == parser.end || fail(&parser, "a parenthesis has no partner")) &&
       emit(&parser, (struct instruction){.op = OP_MATCH});
  *why = parser.why;
  if (!ok)
    schema_pattern_free(&parser.pattern);
  return parser.pattern;
}

void schema_pattern_free(struct schema_pattern **pattern) {
  if (!*pattern)
    return;
  for (size_t i = 0; i < (*pattern)->class_count; i++)
    base_free((*pattern)->classes[i].ranges);
  base_free((*pattern)->classes);
  base_free((*pattern)->program);
  base_free(*pattern);
  *pattern = NULL;
}

/* ---- matching ---- */

struct threads {
  size_t *list;
  size_t count;
  uint32_t *seen; /* by instruction: the position it was added at, plus one */
  size_t *stack;
};

struct position {
  uint32_t stamp;
  bool begin, end, boundary;
};

static bool is_word(uint32_t character) {
  return character < 128 && (character == '_' || (character >= '0' && character <= '9') ||
                             ((character | 0x20) >= 'a' && (character | 0x20) <= 'z'));
}

/* Adds an instruction and all that can be reached from it without reading; true: a match. */
static bool thread_add(const struct schema_pattern *pattern, struct threads *threads, size_t start,
                       const struct position *position, uint32_t *budget) {
  size_t depth = 0;
  threads->stack[depth++] = start;
  while (depth > 0) {
    size_t at = threads->stack[--depth];
    const struct instruction *instruction = &pattern->program[at];
    if (threads->seen[at] == position->stamp)
      continue;
    threads->seen[at] = position->stamp;
    *budget -= *budget > 0;
    switch (instruction->op) {
    case OP_MATCH:
      return true;
    case OP_JUMP:
      threads->stack[depth++] = instruction->x;
      break;
    case OP_SPLIT:
      threads->stack[depth++] = instruction->y;
      threads->stack[depth++] = instruction->x;
      break;
    case OP_BEGIN:
    case OP_END:
    case OP_BOUNDARY:
    case OP_INSIDE:
      if (instruction->op == OP_BEGIN ? position->begin
          : instruction->op == OP_END ? position->end
                                      : position->boundary == (instruction->op == OP_BOUNDARY))
        threads->stack[depth++] = at + 1;
      break;
    default:
      threads->list[threads->count++] = at;
    }
  }
  return false;
}

static bool reads(const struct schema_pattern *pattern, const struct instruction *instruction, uint32_t character) {
  return instruction->op == OP_CHARACTER ? instruction->character == character
         : instruction->op == OP_ANY
             ? character != '\n' && character != '\r' && character != 0x2028 && character != 0x2029
             : class_has(&pattern->classes[instruction->x], character);
}

enum schema_match schema_pattern_match(const struct schema_pattern *pattern, const char *text, size_t length,
                                       uint32_t *budget) {
  const char *at = text, *end = text + length;
  size_t *memory = base_calloc(4 * pattern->length + 2, sizeof(*memory));
  size_t *arrivals = memory, arrived = 0; /* where reading the last character led */
  struct threads now = {.list = memory + pattern->length,
                        .stack = memory + 2 * pattern->length,
                        .seen = base_calloc(pattern->length, sizeof(uint32_t))};
  struct position position = {0};
  enum schema_match answer = SCHEMA_MATCH_NO;
  uint32_t before = 0;
  for (const char *peek = at; answer == SCHEMA_MATCH_NO; at = peek) {
    uint32_t character = peek < end ? character_next(&peek, end) : 0;
    position.stamp++;
    position.begin = at == text;
    position.end = at == end;
    position.boundary = (!position.begin && is_word(before)) != (!position.end && is_word(character));
    now.count = 0;
    bool matched = thread_add(pattern, &now, 0, &position, budget); /* a match may begin anywhere */
    for (size_t i = 0; i < arrived && !matched; i++)
      matched = thread_add(pattern, &now, arrivals[i], &position, budget);
    if (matched || at == end) {
      answer = matched ? SCHEMA_MATCH_YES : SCHEMA_MATCH_NO;
      break;
    }
    if (*budget == 0)
      answer = SCHEMA_MATCH_GAVE_UP;
    arrived = 0;
    for (size_t i = 0; i < now.count; i++)
      if (reads(pattern, &pattern->program[now.list[i]], character))
        arrivals[arrived++] = now.list[i] + 1;
    before = character;
  }
  base_free(memory);
  base_free(now.seen);
  return answer;
}

/* commands_test.c: the command table is sound, and everything that is made from it knows every command. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/str.h"
#include "sdk/base/test.h"
#include "supervisor/ctl/ctl_internal.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Each row of global and own options once. */
static void check_options(const struct ctl_command *command) {
  const struct ctl_option *all[64];
  size_t count = 0;
  for (const struct ctl_option *option = ctl_global_options; option->name; option++)
    all[count++] = option;
  for (const struct ctl_option *option = command->options; option && option->name; option++)
    all[count++] = option;
  ck_assert_msg(count <= 32, "%s has more options than the reader takes", command->name);
  for (size_t i = 0; i < count; i++) {
    ck_assert_msg(!str_is_empty(all[i]->help), "%s --%s has no help", command->name, all[i]->name);
    ck_assert_msg(all[i]->value || !all[i]->repeats, "%s --%s: a flag cannot repeat", command->name, all[i]->name);
    for (size_t k = 0; k < i; k++) {
      ck_assert_msg(!str_equal(all[i]->name, all[k]->name), "%s --%s is there twice", command->name, all[i]->name);
      ck_assert_msg(!all[i]->letter || all[i]->letter != all[k]->letter, "%s -%c is there twice", command->name,
                    all[i]->letter);
    }
  }
}

START_TEST(every_row_is_sound) {
  for (size_t i = 0; i < ctl_command_count; i++) {
    const struct ctl_command *command = &ctl_commands[i];
    ck_assert_ptr_nonnull(command->run);
    ck_assert_msg(command->summary[0] >= 'a' && command->summary[0] <= 'z', "%s", command->name);
    ck_assert_msg(!str_ends_with(command->summary, "."), "%s", command->name);
    ck_assert(command->least <= command->most);
    ck_assert_msg((command->most > 0) == (*command->arguments != '\0'), "%s", command->name);
    check_options(command);
    for (size_t k = 0; k < i; k++)
      ck_assert_msg(!str_equal(command->name, ctl_commands[k].name), "%s is there twice", command->name);
  }
}
END_TEST

START_TEST(commands_of_a_group_stand_together_and_a_group_is_no_command) {
  for (size_t i = 1; i < ctl_command_count; i++) {
    char group[32];
    const char *space = strchr(ctl_commands[i].name, ' ');
    if (!space)
      continue;
    snprintf(group, sizeof(group), "%.*s", (int)(space - ctl_commands[i].name), ctl_commands[i].name);
    ck_assert(ctl_group_exists(group));
    bool before = str_starts_with(ctl_commands[i - 1].name, group);
    for (size_t k = 0; k < i; k++) {
      ck_assert_msg(!str_equal(ctl_commands[k].name, group), "%s", group);
      ck_assert_msg(before || strncmp(ctl_commands[k].name, ctl_commands[i].name, strlen(group) + 1) != 0,
                    "the group %s is torn apart", group);
    }
  }
  ck_assert(!ctl_group_exists("tok"));
  ck_assert(!ctl_group_exists("status"));
}
END_TEST

START_TEST(commands_are_found_by_their_words) {
  static const struct {
    char *words[3];
    const char *name; /* NULL: none */
    unsigned used;
  } cases[] = {{{"status"}, "status", 1}, {{"token", "create"}, "token create", 2}, {{"token", "creat"}, NULL, 0},
               {{"token"}, NULL, 0},      {{"delete", "Tool", "x"}, "delete", 1},   {{""}, NULL, 0}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    unsigned used = 0;
    size_t count = 0;
    while (count < 3 && cases[i].words[count])
      count++;
    const struct ctl_command *command = ctl_command_find(cases[i].words, count, &used);
    if (cases[i].name) {
      ck_assert_ptr_nonnull(command);
      ck_assert_str_eq(command->name, cases[i].name);
      ck_assert_uint_eq(used, cases[i].used);
    } else {
      ck_assert_ptr_null(command);
    }
  }
}
END_TEST

START_TEST(help_reference_and_completion_know_every_command_and_option) {
  static const char *const shells[] = {"bash", "zsh", "fish"};
  struct buf help = {0}, reference = {0};
  ctl_help_write(&help);
  ctl_reference_write(&reference);
  for (size_t i = 0; i < ctl_command_count; i++) {
    struct buf text = {0};
    ck_assert_msg(strstr(help.data, ctl_commands[i].name), "%s", ctl_commands[i].name);
    ck_assert_msg(strstr(reference.data, ctl_commands[i].name), "%s", ctl_commands[i].name);
    ctl_help_command_write(&ctl_commands[i], &text);
    for (const struct ctl_option *option = ctl_commands[i].options; option && option->name; option++)
      ck_assert_ptr_nonnull(strstr(text.data, option->name));
    buf_free(&text);
  }
  for (size_t s = 0; s < COUNT(shells); s++) {
    struct buf script = {0};
    ck_assert(ctl_completion_write(shells[s], &script));
    ck_assert_ptr_nonnull(strstr(script.data, "complete -- "));
    buf_free(&script);
  }
  struct buf nothing = {0};
  ck_assert(!ctl_completion_write("tcsh", &nothing));
  buf_free(&help);
  buf_free(&reference);
}
END_TEST

/* What `gatehouse complete -- …` answers, without what words mean. Nothing of it asks a gateway. */
static char *completed(char **words) {
  struct ctl ctl = {0};
  struct buf text = {0}, bare = {0};
  size_t count = 0;
  while (words[count])
    count++;
  ctl_complete_write(&ctl, words, count, &text);
  for (const char *line = text.data; line && *line; line += strcspn(line, "\n") + 1)
    buf_printf(&bare, "%.*s ", (int)strcspn(line, "\t\n"), line);
  base_free(ctl.run_dir);
  buf_free(&text);
  return buf_take(&bare);
}

START_TEST(words_are_completed_from_the_table) {
  static const struct {
    char *words[6];
    const char *wanted;
  } cases[] = {{{"sta", NULL}, "status "},
               {{"mod", NULL}, "module "},
               {{"module", "re", NULL}, "restart release "},
               {{"module", "upgrade", "mcp", "--p", NULL}, "--path --probation "},
               {{"module", "upgrade", "mcp", "--path", "/o", NULL}, ":files "},
               {{"module", "upgrade", "mcp", "--to", "/o", NULL}, ":files "},
               {{"apply", "-f", "", NULL}, ":files "},
               {{"-o", "", NULL}, "table json yaml "},
               {{"status", "--output", "y", NULL}, "yaml "},
               {{"status", "--output=j", NULL}, "--output=json "},
               {{"status", "--output", "=", NULL}, "table json yaml "},
               {{"status", "--output", "=", "j", NULL}, "json "},
               {{"--output", "json", "delete", "Te", NULL}, "Team "},
               {{"export", "Tool", "Te", NULL}, "Team "},
               {{"completion", "", NULL}, "bash zsh fish "},
               {{"completion", "bash", "", NULL}, ""},
               {{"help", "token", "r", NULL}, "revoke "},
               {{"status", "", NULL}, ""},
               {{"nonsense", "", NULL}, ""}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    char *found = completed((char **)(uintptr_t)cases[i].words);
    ck_assert_msg(str_equal(found, cases[i].wanted), "case %zu: \"%s\", not \"%s\"", i, found, cases[i].wanted);
    base_free(found);
  }
}
END_TEST

START_TEST(every_command_and_option_is_completed) {
  char *first = completed((char *[]){"", NULL});
  for (size_t i = 0; i < ctl_command_count; i++) {
    char *name = base_strdup(ctl_commands[i].name), *second = strchr(name, ' ');
    if (second)
      *second++ = '\0';
    ck_assert_ptr_nonnull(strstr(first, name));
    char *options = completed(second ? (char *[]){name, second, "--", NULL} : (char *[]){name, "--", NULL});
    for (const struct ctl_option *option = ctl_commands[i].options; option && option->name; option++)
      ck_assert_msg(strstr(options, option->name), "%s: %s", name, option->name);
    base_free(options);
    base_free(name);
  }
  base_free(first);
}
END_TEST

/* Reads "gatehouse …" and answers the status; *ctl is filled for -1. */
static int read_words(struct ctl *ctl, char **words) {
  int count = 0;
  while (words[count])
    count++;
  *ctl = (struct ctl){0};
  return ctl_arguments_read(ctl, count, words);
}
#define READ(ctl, ...) read_words(ctl, (char *[]){"gatehouse", __VA_ARGS__, NULL})

START_TEST(options_stand_anywhere) {
  static char *create[] = {"gatehouse", "--timeout", "2s", "token", "create", "--team=a",
                           "--user",    "x@y",       "-t", "b",     "-ojson", NULL};
  static char *delete[] = {"gatehouse", "delete", "Tool", "--", "-f", NULL};
  struct ctl ctl;
  size_t count;
  ck_assert_int_eq(read_words(&ctl, create), -1);
  ck_assert_str_eq(ctl.command->name, "token create");
  ck_assert_str_eq(ctl_text(&ctl, "user"), "x@y");
  ck_assert_int_eq(ctl.output, CTL_OUTPUT_JSON);
  ck_assert_uint_eq(ctl.timeout_ms, 2000);
  char **teams = ctl_texts(&ctl, "team", &count);
  ck_assert_uint_eq(count, 2);
  ck_assert_str_eq(teams[0], "a");
  ck_assert_str_eq(teams[1], "b");
  base_free(teams);
  ctl_arguments_free(&ctl);
  ck_assert_int_eq(read_words(&ctl, delete), -1);
  ck_assert_str_eq(ctl.arguments[1], "-f");
  ctl_arguments_free(&ctl);
}
END_TEST

START_TEST(wrong_arguments_are_usage_errors) {
  struct ctl ctl;
  ck_assert_int_eq(READ(&ctl, "nothing"), CTL_EXIT_USAGE);
  ck_assert_int_eq(READ(&ctl, "token"), CTL_EXIT_USAGE);
  ck_assert_int_eq(READ(&ctl, "token", "x"), CTL_EXIT_USAGE);
  ck_assert_int_eq(READ(&ctl, "status", "extra"), CTL_EXIT_USAGE);
  ck_assert_int_eq(READ(&ctl, "delete", "Tool"), CTL_EXIT_USAGE);
  ck_assert_int_eq(READ(&ctl, "status", "--nope"), CTL_EXIT_USAGE);
  ck_assert_int_eq(READ(&ctl, "status", "-Z"), CTL_EXIT_USAGE);
  ctl_arguments_free(&ctl);
  ck_assert_int_eq(READ(&ctl, "status", "--output"), CTL_EXIT_USAGE);
  ck_assert_int_eq(READ(&ctl, "status", "--output", "xml"), CTL_EXIT_USAGE);
  ctl_arguments_free(&ctl);
  ck_assert_int_eq(READ(&ctl, "-ojson", "status", "-oyaml"), CTL_EXIT_USAGE);
  ctl_arguments_free(&ctl);
  ck_assert_int_eq(READ(&ctl, "status", "--timeout", "soon"), CTL_EXIT_USAGE);
  ctl_arguments_free(&ctl);
  ck_assert_int_eq(read_words(&ctl, (char *[]){"gatehouse", NULL}), CTL_EXIT_USAGE);
}
END_TEST

TEST_MAIN("ctl.commands", every_row_is_sound, commands_of_a_group_stand_together_and_a_group_is_no_command,
          commands_are_found_by_their_words, words_are_completed_from_the_table, every_command_and_option_is_completed,
          help_reference_and_completion_know_every_command_and_option, options_stand_anywhere,
          wrong_arguments_are_usage_errors)

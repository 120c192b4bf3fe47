/* main.c: gatehouse-supervisor. Reads arguments and configuration, says everything that is wrong with them, and runs.
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/crash.h"
#include "sdk/base/log.h"
#include "sdk/base/secret.h"
#include "supervisor/supervisor.h"

extern char **environ;

/* Long options: OPTION(letter, name, argument, help). */
#define OPTIONS(OPTION)                                                                                                \
  OPTION('c', "config", "FILE",                                                                                        \
         "read this file; else $GATEHOUSE_CONFIG, ./gatehouse.yaml, /etc/gatehouse/gatehouse.yaml")                    \
  OPTION('s', "set", "KEY=VALUE", "override one key of the file; may be given often")                                  \
  OPTION('n', "check", NULL, "read the configuration, say what is wrong, start nothing")                               \
  OPTION('h', "help", NULL, "show this help")                                                                          \
  OPTION('V', "version", NULL, "show the version")

struct arguments {
  struct config_source source;
  bool check_only;
};

static void print_help(void) {
  printf("usage: gatehouse-supervisor [--config FILE] [--set KEY=VALUE]... [--check]\n\n"
         "Starts the gateway: binds its listeners, runs the core and the modules, restarts what dies.\n\n");
#define HELP(letter, name, argument, help)                                                                             \
  printf("  -%c, --%s%s%s\n        %s\n", letter, name, (argument) ? " " : "", (argument) ? (argument) : "", help);
  OPTIONS(HELP)
#undef HELP
  printf("\nExit status:\n");
#define EXIT_STATUS(name, value, meaning) printf("  %3d  %s\n", value, meaning);
#include "supervisor/exit_codes.def"
#undef EXIT_STATUS
}

/* -1: go on; else the exit status. */
static int read_arguments(int argc, char **argv, struct arguments *arguments, const char **sets) {
#define LONG(letter, name, argument, help) {name, (argument) ? required_argument : no_argument, NULL, letter},
  static const struct option options[] = {OPTIONS(LONG){0}};
#undef LONG
  int letter;
  while ((letter = getopt_long(argc, argv, "c:s:nhV", options, NULL)) != -1)
    switch (letter) {
    case 'c':
      arguments->source.path = optarg;
      break;
    case 's':
      sets[arguments->source.set_count++] = optarg;
      break;
    case 'n':
      arguments->check_only = true;
      break;
    case 'h':
      print_help();
      return EXIT_STATUS_OK;
    case 'V':
      printf("gatehouse-supervisor %s\n", GATEHOUSE_VERSION);
      return EXIT_STATUS_OK;
    default:
      fprintf(stderr, "Try --help.\n");
      return EXIT_STATUS_USAGE;
    }
  if (optind < argc) {
    fprintf(stderr, "gatehouse-supervisor: unexpected argument \"%s\". Try --help.\n", argv[optind]);
    return EXIT_STATUS_USAGE;
  }
  return -1;
}

static void print_problems(const struct config_problems *problems) {
  for (size_t i = 0; i < problems->count; i++) {
    struct buf line = {0};
    config_problem_format(&problems->items[i], &line);
    fprintf(stderr, "%s\n", line.data);
    buf_free(&line);
  }
  if (problems->total > problems->count)
    fprintf(stderr, "and %zu more\n", problems->total - problems->count);
}

/* Whoever starts us may have closed 0, 1 or 2; our own descriptors must not become those. */
static bool keep_standard_descriptors(void) {
  int fd;
  do
    fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= 2);
  if (fd > 2)
    close(fd);
  return fd > 2;
}

static int run(const struct arguments *arguments) {
  struct config_problems problems;
  struct config *config = config_load(&arguments->source, &problems);
  if (!config) {
    print_problems(&problems);
    return EXIT_STATUS_USAGE;
  }
  log_level_set((enum log_level)config->log_level);
  int status = EXIT_STATUS_OK;
  if (arguments->check_only)
    status = supervisor_check(config) ? EXIT_STATUS_OK : EXIT_STATUS_ENVIRONMENT;
  else
    status = supervisor_run(config, &arguments->source);
  config_free(&config);
  return status;
}

int main(int argc, char **argv) {
  const char **sets = base_calloc((size_t)argc + 1, sizeof(char *));
  struct arguments arguments = {.source = {.environment = environ, .sets = sets}};
  if (!keep_standard_descriptors())
    return EXIT_STATUS_ENVIRONMENT;
  log_init("supervisor", LOG_INFO);
  crash_handler_install("supervisor");
  secret_harden_process();
  int status = read_arguments(argc, argv, &arguments, sets);
  if (status < 0)
    status = run(&arguments);
  base_free(sets);
  return status;
}

/* catalog_test.c: SPI-5, SPI-6, SPI-7, SPI-11, SPI-14: documents applied, refused, exported and deleted; who finds and
 * lists what; names and cursors; discoveries; everything again after a restart. */
#include "core/catalog/catalog_test_support.h"

#define SECRET "plain-secret-4711"
#define META(name, more) "\"metadata\":{\"name\":\"" name "\"" more "}"
#define PUBLIC ",\"visibility\":\"public\",\"owner\":\"root@x.org\""
#define TEAM_RED ",\"visibility\":\"team\",\"team\":\"red\""
#define PRIVATE ",\"owner\":\"dev@x.org\""
#define SCHEMA "\"inputSchema\":{\"type\":\"object\", \"properties\":{\"zone\":{\"type\":\"string\"}}}"
#define REST "\"rest\":{\"url\":\"http://127.0.0.1:4480/v1/time/{zone}\"}"
#define TOOL(name, more) "{\"kind\":\"Tool\"," META(name, more) ",\"spec\":{" SCHEMA "," REST "}}"
#define SPEC(kind, spec) "{\"kind\":\"" kind "\"," META("x", PUBLIC) ",\"spec\":{" spec "}}"
#define REST_SPEC(rest) SPEC("Tool", SCHEMA ",\"rest\":{" rest "}")
#define GATEWAY(name, more)                                                                                            \
  "{\"kind\":\"Gateway\"," META(name, PUBLIC) ",\"spec\":{\"url\":\"http://127.0.0.1:1/mcp\"" more "}}"

static const char *const people[] = {
    "{\"kind\":\"Team\"," META("red", "") "}",
    "{\"kind\":\"Team\"," META("blue", "") ",\"spec\":{}}",
    "{\"kind\":\"Role\"," META("caller",
                               "") ",\"spec\":{\"permissions\":[\"tools.read\",\"tools.execute\",\"servers.read\"]}}",
    "{\"kind\":\"User\"," META("root@x.org", "") ",\"spec\":{\"isAdmin\":true,\"teams\":[\"blue\"]}}",
    "{\"kind\":\"User\"," META("dev@x.org", "") ",\"spec\":{\"teams\":[\"red\"],\"roles\":[\"caller\"]}}",
    "{\"kind\":\"User\"," META("none@x.org", "") ",\"spec\":{}}",
};

static void people_apply(struct fixture *fixture) {
  struct applied applied = apply(fixture, people, COUNT(people), false, false);
  must_apply(&applied);
}

static void collect(void *arg, const struct catalog_record *record, const char *shown_name) {
  (void)record;
  buf_printf(arg, "%s ", shown_name);
}

/* What a caller lists of a kind, in one page. */
static void lists(struct fixture *fixture, const struct policy_context *context, enum catalog_kind kind,
                  const char *server, const char *expected) {
  struct buf names = {0};
  struct error err = {0};
  char *next = NULL;
  ck_assert_msg(catalog_list(fixture->catalog, context, kind, server, 0, NULL, collect, &names, &next, &err), "%s",
                err.code);
  ck_assert_ptr_null(next);
  ck_assert_str_eq(names.data ? names.data : "", expected);
  buf_free(&names);
}

/* ---- apply ---- */

START_TEST(applying_twice_changes_nothing) {
  struct fixture fixture = {0};
  fixture_start(&fixture);
  people_apply(&fixture);
  struct applied applied = APPLY(&fixture, TOOL("time", PUBLIC));
  must_apply(&applied);
  ck_assert_int_eq(applied.actions[0], CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_CREATED);
  uint64_t revision = catalog_revision(fixture.catalog);
  applied = APPLY(&fixture, TOOL("time", PUBLIC));
  must_apply(&applied);
  ck_assert_int_eq(applied.actions[0], CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_UNCHANGED);
  ck_assert_uint_eq(catalog_revision(fixture.catalog), revision);
  applied =
      APPLY(&fixture, "{\"kind\":\"Tool\"," META(
                          "time", PUBLIC
                          ",\"title\":\"T\"") ",\"spec\":{" SCHEMA
                                              ",\"timeoutMs\":7,\"rest\":{\"url\":\"http://127.0.0.1:4480/v2\"}}}");
  must_apply(&applied);
  ck_assert_int_eq(applied.actions[0], CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_UPDATED);
  ck_assert_str_eq(applied.changed[0], "metadata.title spec.timeoutMs spec.rest.url");
  ck_assert_uint_gt(catalog_revision(fixture.catalog), revision);
  fixture_end(&fixture);
}
END_TEST

static const struct {
  const char *document, *code;
} bad[] = {
    {"", "json.malformed"},
    {"[]", "argument.invalid"},
    {"{}", "argument.missing"},
    {"{\"kind\":\"Thing\",\"metadata\":{}}", "argument.invalid"},
    {"{\"kind\":\"Tool\"}", "argument.missing"},
    {"{\"kind\":\"Tool\",\"kind\":\"Tool\"}", "argument.invalid"},
    {"{\"kind\":\"Tool\",\"metadata\":{},\"extra\":1}", "argument.invalid"},
    {"{\"kind\":\"Tool\",\"metadata\":{\"nme\":\"x\"}}", "argument.invalid"},
    {"{\"kind\":\"Team\",\"metadata\":{}}", "argument.missing"},
    {TOOL("../x", PUBLIC), "catalog.record.invalid"},
    {TOOL("x y", PUBLIC), "catalog.record.invalid"},
    {TOOL("x", ""), "catalog.record.invalid"},
    {TOOL("x", ",\"visibility\":\"all\""), "catalog.record.invalid"},
    {TOOL("x", ",\"visibility\":\"team\""), "catalog.record.invalid"},
    {TOOL("x", ",\"visibility\":\"team\",\"team\":\"green\""), "catalog.reference.missing"},
    {TOOL("x", ",\"visibility\":\"public\",\"owner\":\"nobody\""), "catalog.record.invalid"},
    {SPEC("Tool", SCHEMA), "catalog.record.invalid"},
    {SPEC("Tool", SCHEMA ",\"inputSchemaJson\":{}," REST), "argument.invalid"},
    {SPEC("Tool", "\"inputSchema\":{\"type\":\"array\"}," REST), "catalog.record.invalid"},
    {SPEC("Tool", "\"inputSchema\":{\"type\":\"object\",\"required\":1}," REST), "catalog.record.invalid"},
    {SPEC("Tool", "\"inputSchema\":{\"type\":\"object\"}," REST), "catalog.record.invalid"}, /* {zone} undeclared */
    {SPEC("Tool", SCHEMA ",\"annotations\":[]," REST), "catalog.record.invalid"},
    {SPEC("Tool", SCHEMA ",\"timeoutMs\":600001," REST), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"\""), "argument.missing"},
    {REST_SPEC("\"url\":\"ftp://h/\""), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://u:p@h/\""), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://{zone}/\""), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h:99999/\""), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/#f\""), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/{zone\""), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"method\":\"TRACE\""), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"headers\":[{\"name\":\"Authorization\",\"value\":\"x\"}]"),
     "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"headers\":[{\"name\":\"X-My-Token\",\"value\":\"x\"}]"),
     "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"headers\":[{\"name\":\"x\",\"value\":\"a\\r\\nb: c\"}]"),
     "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"headerMapping\":[{\"argument\":\"zone\",\"target\":\"Host\"}]"),
     "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"queryMapping\":[{\"argument\":\"nope\",\"target\":\"q\"}]"),
     "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"egress\":{\"allow\":[\"10.0.0.0/33\"]}"), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"egress\":{\"schemes\":[\"file\"]}"), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"credential\":{}"), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"credential\":{\"bearerToken\":\"\"}"), "catalog.record.invalid"},
    {REST_SPEC("\"url\":\"http://h/\",\"credential\":{\"secretReference\":\"x\"}"), "unsupported"},
    {SPEC("Gateway", "\"url\":\"http://h/{zone}\""), "catalog.record.invalid"},
    {SPEC("Gateway", "\"url\":\"http://h/\",\"transport\":\"stdio\""), "catalog.record.invalid"},
    {SPEC("Gateway", "\"url\":\"http://h/\",\"refreshIntervalSeconds\":9"), "catalog.record.invalid"},
    {SPEC("Server", "\"gateways\":[\"nowhere\"]"), "catalog.reference.missing"},
    {SPEC("Resource", "\"uri\":\"no uri\""), "catalog.record.invalid"},
    {SPEC("Prompt", ""), "catalog.record.invalid"},
    {SPEC("Plugin", "\"kind\":\"deny_list\""), "catalog.record.invalid"},
    {"{\"kind\":\"Plugin\"," META("x", "") ",\"spec\":{\"kind\":\"deny_list\"}}", "unsupported"},
    {"{\"kind\":\"Role\"," META("r", "") ",\"spec\":{\"permissions\":[\"tools.fly\"]}}", "argument.invalid"},
    {"{\"kind\":\"User\"," META("u@x.org", "") ",\"spec\":{\"teams\":[\"green\"]}}", "catalog.reference.missing"},
    {"{\"kind\":\"User\"," META("u@x.org", "") ",\"spec\":{\"roles\":[\"king\"]}}", "catalog.reference.missing"},
};

START_TEST(a_bad_document_stops_the_whole_request) {
  struct fixture fixture = {0};
  fixture_start(&fixture);
  people_apply(&fixture);
  char *before = exported(&fixture);
  for (size_t i = 0; i < COUNT(bad); i++) {
    uint64_t revision = catalog_revision(fixture.catalog);
    struct applied applied = APPLY(&fixture, TOOL("good", PUBLIC), bad[i].document);
    ck_assert_msg(strcmp(applied.codes[1], bad[i].code) == 0, "%s: %s (%s)", bad[i].document, applied.codes[1],
                  applied.messages[1]);
    ck_assert_str_eq(applied.codes[0], "");
    ck_assert_int_eq(applied.actions[1], CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_REFUSED);
    ck_assert(!applied.applied);
    ck_assert_uint_eq(catalog_revision(fixture.catalog), revision);
  }
  struct applied twice = APPLY(&fixture, TOOL("good", PUBLIC), TOOL("good", PUBLIC));
  ck_assert_str_eq(twice.codes[1], "catalog.record.invalid");
  char *after = exported(&fixture);
  ck_assert_str_eq(before, after);
  base_free(before);
  base_free(after);
  fixture_end(&fixture);
}
END_TEST

START_TEST(dry_run_prune_and_delete) {
  struct fixture fixture = {0};
  fixture_start(&fixture);
  people_apply(&fixture);
  struct applied applied = APPLY(&fixture, TOOL("a", PUBLIC), TOOL("b", TEAM_RED));
  must_apply(&applied);
  const char *only_a[] = {TOOL("a", PUBLIC)};
  applied = apply(&fixture, only_a, 1, true, true);
  ck_assert_uint_eq(applied.count, 2);
  ck_assert_int_eq(applied.actions[1], CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_DELETED);
  ck_assert(!applied.applied);
  ck_assert_uint_eq(catalog_record_count(fixture.catalog), 2);
  const char *no_red[] = {people[1]}; /* red is still needed */
  applied = apply(&fixture, no_red, 1, false, true);
  ck_assert_str_eq(applied.codes[1], "catalog.record.in_use");
  applied = apply(&fixture, only_a, 1, false, true);
  must_apply(&applied);
  ck_assert_uint_eq(catalog_record_count(fixture.catalog), 1);
  fixture_end(&fixture);
}
END_TEST

struct deleted {
  bool done;
  char code[ERROR_CODE_MAX];
};

static void on_deleted(void *arg, uint64_t revision, const struct error *err) {
  struct deleted *deleted = arg;
  (void)revision;
  deleted->done = true;
  str_copy(deleted->code, sizeof(deleted->code), err ? err->code : "");
}

START_TEST(delete_asks_who_needs_it) {
  static const struct {
    const char *kind, *name, *code;
  } rows[] = {{"Team", "red", "catalog.record.in_use"},
              {"Role", "caller", "catalog.record.in_use"},
              {"Tool", "none", "catalog.record.not_found"},
              {"Thing", "x", "argument.invalid"},
              {"User", "dev@x.org", ""},
              {"Role", "caller", ""},
              {"Team", "red", ""}};
  struct fixture fixture = {0};
  fixture_start(&fixture);
  people_apply(&fixture);
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct deleted deleted = {0};
    catalog_delete(fixture.catalog, rows[i].kind, rows[i].name, on_deleted, &deleted);
    wait_for(&fixture, &deleted.done);
    ck_assert_msg(strcmp(deleted.code, rows[i].code) == 0, "%zu: %s", i, deleted.code);
  }
  ck_assert(!policy_team_exists(fixture.policy, "red") && !policy_user_exists(fixture.policy, "dev@x.org"));
  fixture_end(&fixture);
}
END_TEST

/* ---- secrets ---- */

START_TEST(a_credential_is_nowhere_in_plain_and_survives_a_restart) {
  struct fixture fixture = {0};
  struct error err = {0};
  fixture_on_disk(&fixture);
  fixture_start(&fixture);
  people_apply(&fixture);
  struct applied applied =
      APPLY(&fixture, REST_SPEC("\"url\":\"http://h/\",\"credential\":{\"bearerToken\":\"" SECRET "\"}"));
  must_apply(&applied);
  char *export = exported(&fixture);
  ck_assert_ptr_null(strstr(export, SECRET));
  base_free(export);
  fixture_end(&fixture);
  struct buf file = {0};
  ck_assert(io_read_file(fixture.path, 1 << 24, &file, &err));
  ck_assert_ptr_null(memmem(file.data, file.length, SECRET, strlen(SECRET)));
  ck_assert_ptr_nonnull(memmem(file.data, file.length, "Tool/x", 6));
  buf_free(&file);
  fixture_start(&fixture);
  const struct policy_context *root = caller(&fixture, "root@x.org", "*", NULL);
  const struct catalog_record *record =
      catalog_find(fixture.catalog, root, CATALOG_KIND_TOOL, NULL, "x", NULL, NULL, &err);
  ck_assert_ptr_nonnull(record);
  struct catalog_headers headers = {0};
  ck_assert_msg(catalog_call_headers(fixture.catalog, record, &headers, &err), "%s", err.message);
  ck_assert_uint_eq(headers.count, 1);
  ck_assert_str_eq(headers.items[0].value, "Bearer " SECRET);
  catalog_headers_free(&headers);
  /* Empty: as it is. */
  applied = APPLY(&fixture, REST_SPEC("\"url\":\"http://h/\",\"credential\":{\"bearerToken\":\"\"}"));
  must_apply(&applied);
  ck_assert_int_eq(applied.actions[0], CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_UNCHANGED);
  applied = APPLY(&fixture, REST_SPEC("\"url\":\"http://h/\",\"credential\":{\"bearerToken\":\"new\"}"));
  must_apply(&applied);
  ck_assert_str_eq(applied.changed[0], "spec.rest.credential");
  policy_context_release(&root);
  fixture_end(&fixture);
  fixture_off_disk(&fixture);
}
END_TEST

/* ---- who sees what ---- */

START_TEST(visibility_decides_what_is_found_and_listed) {
  static const struct {
    const char *email, *team, *listed;
  } rows[] = {{"root@x.org", "*", "own public red "},
              {"root@x.org", NULL, "public "},
              {"dev@x.org", "red", "hidden public red "},
              {"dev@x.org", NULL, "public "}};
  struct fixture fixture = {0};
  fixture_start(&fixture);
  people_apply(&fixture);
  struct applied applied = APPLY(&fixture, TOOL("public", PUBLIC), TOOL("red", TEAM_RED), TOOL("hidden", PRIVATE),
                                 TOOL("own", ",\"owner\":\"root@x.org\""), TOOL("off", PUBLIC ",\"disabled\":true"));
  must_apply(&applied);
  static const char *const names[] = {"public", "red", "hidden", "own", "off", "absent"};
  for (size_t i = 0; i < COUNT(rows); i++) {
    const struct policy_context *context = caller(&fixture, rows[i].email, rows[i].team, NULL);
    lists(&fixture, context, CATALOG_KIND_TOOL, NULL, rows[i].listed);
    for (size_t k = 0; k < COUNT(names); k++) {
      struct error err = {0};
      char word[32];
      snprintf(word, sizeof(word), "%s ", names[k]);
      const struct catalog_record *record =
          catalog_find(fixture.catalog, context, CATALOG_KIND_TOOL, NULL, names[k], NULL, "tools.execute", &err);
      ck_assert_msg((record != NULL) == (strstr(rows[i].listed, word) != NULL), "%zu %s", i, names[k]);
      ck_assert(record || error_is(&err, ERR_CATALOG_NOT_FOUND));
    }
    policy_context_release(&context);
  }
  struct error err = {0};
  char *next;
  const struct policy_context *none = caller(&fixture, "none@x.org", NULL, NULL);
  ck_assert(!catalog_list(fixture.catalog, none, CATALOG_KIND_TOOL, NULL, 0, NULL, collect, NULL, &next, &err));
  ck_assert(error_is(&err, ERR_AUTH_PERMISSION_DENIED));
  ck_assert_ptr_null(
      catalog_find(fixture.catalog, none, CATALOG_KIND_TOOL, NULL, "public", NULL, "tools.execute", &err));
  ck_assert(error_is(&err, ERR_AUTH_PERMISSION_DENIED));
  policy_context_release(&none);
  fixture_end(&fixture);
}
END_TEST

/* ---- discoveries, names, servers, cursors, changes ---- */

struct discovered {
  bool done;
  uint32_t created, updated, deleted;
  char code[ERROR_CODE_MAX];
};

static void on_discovered(void *arg, uint32_t created, uint32_t updated, uint32_t deleted, const struct error *err) {
  *(struct discovered *)arg = (struct discovered){true, created, updated, deleted, ""};
  str_copy(((struct discovered *)arg)->code, ERROR_CODE_MAX, err ? err->code : "");
}

static struct discovered discover(struct fixture *fixture, const char *gateway_id, const char *const (*tools)[2],
                                  size_t count) {
  struct catalog_discovered items[16];
  struct discovered discovered = {0};
  for (size_t i = 0; i < count; i++)
    items[i] = (struct catalog_discovered){CATALOG_KIND_TOOL, tools[i][0], tools[i][1], strlen(tools[i][1])};
  catalog_discovered_apply(fixture->catalog, gateway_id, items, count, on_discovered, &discovered);
  wait_for(fixture, &discovered.done);
  return discovered;
}

static void change_text(void *arg, uint64_t revision, enum catalog_kind kind, const char *record_id, bool deleted) {
  (void)revision;
  buf_printf(arg, "%s", !record_id ? "." : deleted ? "-" : kind == CATALOG_KIND_GATEWAY ? "g" : "+");
}

static void gateway_id_keep(void *arg, const struct catalog_record *record, const char *shown_name) {
  char(*ids)[ID_UUID_BYTES] = arg;
  str_copy(ids[shown_name[0] - 'a'], ID_UUID_BYTES, record->id);
}

START_TEST(what_upstreams_offer_becomes_records) {
  struct fixture fixture = {0};
  struct error err = {0};
  char gateways[2][ID_UUID_BYTES] = {"", ""};
  fixture_on_disk(&fixture);
  fixture_start(&fixture);
  people_apply(&fixture);
  struct applied applied = APPLY(&fixture, GATEWAY("a", ""), GATEWAY("b", ""), TOOL("time", PUBLIC));
  must_apply(&applied);
  catalog_gateways(fixture.catalog, gateway_id_keep, gateways);
  struct buf changes = {0};
  struct catalog_watch *watch = catalog_watch_start(fixture.catalog, change_text, &changes);
  uint64_t before = catalog_revision(fixture.catalog);
  static const char *const first[][2] = {
      {"add", "{ \"name\" : \"add\", \"x\":1.50, \"inputSchema\":{\"type\":\"object\",\"required\":[\"n\"]}}"},
      {"time", "{\"name\":\"time\"}"},
      {"bad", "{\"name\":\"other\"}"},
      {"twice", "{\"name\":\"twice\",\"name\":\"twice\"}"},
      {"odd", "{\"name\":\"odd\",\"inputSchema\":{\"pattern\":\"(\"}}"}};
  struct discovered discovered = discover(&fixture, gateways[0], first, COUNT(first));
  ck_assert_uint_eq(discovered.created, 3);
  ck_assert_str_eq(changes.data, "+++.");
  ck_assert_uint_eq(discover(&fixture, gateways[1], first, 2).created, 2);
  discovered = discover(&fixture, gateways[0], first, COUNT(first));
  ck_assert_uint_eq(discovered.created + discovered.updated + discovered.deleted, 0);
  ck_assert_str_eq(discover(&fixture, "nobody", first, 1).code, "catalog.record.not_found");
  const struct policy_context *root = caller(&fixture, "root@x.org", "*", NULL);
  lists(&fixture, root, CATALOG_KIND_TOOL, NULL, "a-time add b-add b-time odd time ");
  /* Under another name, the bytes but the name. */
  const struct catalog_record *record =
      catalog_find(fixture.catalog, root, CATALOG_KIND_TOOL, NULL, "b-add", NULL, "tools.execute", &err);
  ck_assert_ptr_nonnull(record);
  struct buf definition = {0};
  catalog_definition_write(record, "b-add", &definition);
  ck_assert_str_eq(definition.data,
                   "{ \"name\" : \"b-add\", \"x\":1.50, \"inputSchema\":{\"type\":\"object\",\"required\":[\"n\"]}}");
  buf_free(&definition);
  ck_assert(!catalog_arguments_check(record, "{}", 2, &err) && error_is(&err, ERR_INVOKE_ARGUMENTS));
  ck_assert(catalog_arguments_check(record, "{\"n\":1}", 7, &err));
  char kept_id[ID_UUID_BYTES];
  str_copy(kept_id, sizeof(kept_id), record->id);
  /* A server shows its subset under the names that are free there. */
  applied = APPLY(&fixture, "{\"kind\":\"Server\"," META("s", PUBLIC) ",\"spec\":{\"tools\":[\"b-time\",\"gone\"]}}",
                  "{\"kind\":\"Server\"," META("t", TEAM_RED) ",\"spec\":{\"gateways\":[\"b\"]}}");
  must_apply(&applied);
  lists(&fixture, root, CATALOG_KIND_TOOL, "s", "time ");
  lists(&fixture, root, CATALOG_KIND_TOOL, "t", "add time ");
  ck_assert_ptr_null(catalog_find(fixture.catalog, root, CATALOG_KIND_TOOL, kept_id, NULL, "s", NULL, &err));
  const struct policy_context *dev = caller(&fixture, "dev@x.org", NULL, NULL);
  const struct policy_context *limited = caller(&fixture, "dev@x.org", "red", "s");
  ck_assert_ptr_null(catalog_find(fixture.catalog, dev, CATALOG_KIND_TOOL, NULL, "add", "t", NULL, &err));
  ck_assert(error_is(&err, ERR_CATALOG_NOT_FOUND));
  ck_assert_ptr_null(catalog_find(fixture.catalog, limited, CATALOG_KIND_TOOL, NULL, "add", "t", NULL, &err));
  lists(&fixture, limited, CATALOG_KIND_TOOL, NULL, "time ");
  /* Changed, gone. */
  static const char *const second[][2] = {{"add", "{\"name\":\"add\",\"x\":2}"}};
  discovered = discover(&fixture, gateways[1], second, 1);
  ck_assert_uint_eq(discovered.updated, 1);
  ck_assert_uint_eq(discovered.deleted, 1);
  buf_clear(&changes);
  ck_assert(catalog_changes_since(fixture.catalog, before, change_text, &changes, &err));
  ck_assert_ptr_nonnull(strchr(changes.data, '-'));
  ck_assert(!catalog_changes_since(fixture.catalog, before + 1000, change_text, &changes, &err));
  ck_assert(error_is(&err, ERR_CATALOG_REVISION_GONE));
  catalog_watch_stop(&watch);
  policy_context_release(&root);
  policy_context_release(&dev);
  policy_context_release(&limited);
  fixture_end(&fixture);
  fixture_start(&fixture);
  ck_assert_str_eq(catalog_record_by_id(fixture.catalog, kept_id)->original_name, "add");
  struct deleted deleted = {0};
  catalog_delete(fixture.catalog, "Gateway", "b", on_deleted, &deleted);
  wait_for(&fixture, &deleted.done);
  ck_assert_str_eq(deleted.code, "catalog.record.in_use");
  buf_free(&changes);
  fixture_end(&fixture);
  fixture_off_disk(&fixture);
}
END_TEST

START_TEST(cursors_survive_changes_and_nothing_else_passes) {
  struct fixture fixture = {0};
  struct error err = {0};
  fixture_start(&fixture);
  people_apply(&fixture);
  struct applied applied = APPLY(&fixture, TOOL("a", PUBLIC), TOOL("b", PUBLIC), TOOL("c", PUBLIC), TOOL("d", PUBLIC));
  must_apply(&applied);
  const struct policy_context *root = caller(&fixture, "root@x.org", "*", NULL);
  struct buf names = {0};
  char *cursor = NULL, *next = NULL;
  ck_assert(catalog_list(fixture.catalog, root, CATALOG_KIND_TOOL, NULL, 2, "", collect, &names, &cursor, &err));
  ck_assert_ptr_nonnull(cursor);
  struct deleted deleted = {0};
  catalog_delete(fixture.catalog, "Tool", "b", on_deleted, &deleted);
  wait_for(&fixture, &deleted.done);
  applied = APPLY(&fixture, TOOL("aa", PUBLIC), TOOL("cc", PUBLIC));
  ck_assert(catalog_list(fixture.catalog, root, CATALOG_KIND_TOOL, NULL, 3, cursor, collect, &names, &next, &err));
  ck_assert_str_eq(names.data, "a b c cc d ");
  ck_assert_ptr_null(next);
  static const char *const wrong[] = {"x", "!!!!", "MSAxIC0g", "MSAxIC0gAAAA"};
  for (size_t i = 0; i < COUNT(wrong); i++) {
    ck_assert(!catalog_list(fixture.catalog, root, CATALOG_KIND_TOOL, NULL, 2, wrong[i], collect, &names, &next, &err));
    ck_assert(error_is(&err, ERR_CATALOG_CURSOR));
  }
  ck_assert(!catalog_list(fixture.catalog, root, CATALOG_KIND_PROMPT, NULL, 2, cursor, collect, &names, &next, &err));
  ck_assert(error_is(&err, ERR_CATALOG_CURSOR));
  base_free(cursor);
  buf_free(&names);
  policy_context_release(&root);
  fixture_end(&fixture);
}
END_TEST

START_TEST(writes_queue_and_closing_tells_them) {
  struct fixture fixture = {0};
  fixture_start(&fixture);
  people_apply(&fixture);
  struct applied first, second;
  const char *tool[] = {TOOL("a", PUBLIC)};
  apply_start(&fixture, tool, 1, false, false, &first);
  apply_start(&fixture, tool, 1, false, false, &second);
  wait_for(&fixture, &second.done);
  must_apply(&first);
  must_apply(&second);
  ck_assert_int_eq(second.actions[0], CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_UNCHANGED);
  apply_start(&fixture, tool, 1, false, false, &first);
  apply_start(&fixture, tool, 1, false, false, &second);
  catalog_close(&fixture.catalog);
  ck_assert(first.done && second.done && !first.ok && !second.ok);
  fixture_end(&fixture);
}
END_TEST

TEST_MAIN("catalog", applying_twice_changes_nothing, a_bad_document_stops_the_whole_request, dry_run_prune_and_delete,
          delete_asks_who_needs_it, a_credential_is_nowhere_in_plain_and_survives_a_restart,
          visibility_decides_what_is_found_and_listed, what_upstreams_offer_becomes_records,
          cursors_survive_changes_and_nothing_else_passes, writes_queue_and_closing_tells_them)

/* quickstart_test.c: deploy/examples/quickstart/catalog.yaml, as JSON, applies cleanly and twice. */
#include "core/catalog/catalog_test_support.h"

static const char *const quickstart[] = {
    "{\"kind\":\"Team\",\"metadata\":{\"name\":\"explorers\",\"title\":\"Explorers\",\"description\":\"Those who try "
    "the quick start.\"},\"spec\":{}}",
    "{\"kind\":\"Team\",\"metadata\":{\"name\":\"staff\",\"title\":\"Staff\",\"description\":\"Those who run "
    "it.\"},\"spec\":{}}",
    "{\"kind\":\"Role\",\"metadata\":{\"name\":\"tool-user\",\"description\":\"May see and call "
    "tools.\"},\"spec\":{\"permissions\":[\"servers.use\",\"tools.read\",\"tools.execute\"]}}",
    "{\"kind\":\"User\",\"metadata\":{\"name\":\"admin@example.com\"},\"spec\":{\"fullName\":\"Administrator\","
    "\"isAdmin\":true,\"teams\":[\"staff\"],\"roles\":[\"platform_admin\"]}}",
    "{\"kind\":\"User\",\"metadata\":{\"name\":\"guest@example.com\"},\"spec\":{\"fullName\":\"Guest\",\"teams\":["
    "\"explorers\"],\"roles\":[\"tool-user\"]}}",
    "{\"kind\":\"Tool\",\"metadata\":{\"name\":\"world_time\",\"title\":\"The time in a zone\",\"description\":\"The "
    "current time, or a given instant, as people in a time zone see "
    "it.\",\"visibility\":\"public\",\"owner\":\"admin@example.com\",\"tags\":[\"time\"]},\"spec\":{"
    "\"inputSchemaJson\":{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"zone\"],\"properties\":{"
    "\"zone\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":64,\"description\":\"IANA time zone name such as "
    "Europe/Berlin.\"},\"format\":{\"type\":\"string\",\"enum\":[\"iso\",\"unix\",\"text\"],\"description\":\"Form of "
    "the member time; default: iso.\"},\"at\":{\"type\":\"string\",\"description\":\"An RFC 3339 instant such as "
    "2026-11-21T09:30:00Z; default: "
    "now.\"}}},\"outputSchemaJson\":{\"type\":\"object\",\"required\":[\"zone\",\"local\",\"utc_offset\",\"weekday\","
    "\"time\"],\"properties\":{\"zone\":{\"type\":\"string\"},\"local\":{\"type\":\"string\"},\"utc_offset\":{\"type\":"
    "\"string\"},\"abbreviation\":{\"type\":\"string\"},\"weekday\":{\"type\":\"string\"},\"dst\":{\"type\":"
    "\"boolean\"},\"unix\":{\"type\":\"integer\"},\"time\":{\"type\":\"string\"}}},\"annotationsJson\":{"
    "\"readOnlyHint\":true,\"openWorldHint\":false},\"timeoutMs\":5000,\"rest\":{\"method\":\"GET\",\"url\":\"http://"
    "127.0.0.1:4480/v1/time/"
    "{zone}\",\"queryMapping\":[{\"argument\":\"format\",\"target\":\"format\"},{\"argument\":\"at\",\"target\":\"at\"}"
    "],\"egress\":{\"allow\":[\"127.0.0.1:4480\"],\"schemes\":[\"http\"]}}}}",
    "{\"kind\":\"Tool\",\"metadata\":{\"name\":\"convert_units\",\"title\":\"Convert a value\",\"description\":\"One "
    "value in another unit of length, mass, temperature, speed, data, time or "
    "volume.\",\"visibility\":\"public\",\"owner\":\"admin@example.com\",\"tags\":[\"units\"]},\"spec\":{"
    "\"inputSchemaJson\":{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"value\",\"from_unit\","
    "\"to_unit\"],\"properties\":{\"value\":{\"type\":\"number\",\"description\":\"The "
    "value.\"},\"from_unit\":{\"type\":\"string\",\"description\":\"Its unit, such as mi, lb, C, km/h or "
    "GiB.\"},\"to_unit\":{\"type\":\"string\",\"description\":\"The unit "
    "wanted.\"}}},\"outputSchemaJson\":{\"type\":\"object\",\"required\":[\"value\",\"from\",\"to\",\"quantity\","
    "\"result\"],\"properties\":{\"value\":{\"type\":\"number\"},\"from\":{\"type\":\"string\"},\"to\":{\"type\":"
    "\"string\"},\"quantity\":{\"type\":\"string\"},\"result\":{\"type\":\"number\"}}},\"annotationsJson\":{"
    "\"readOnlyHint\":true,\"idempotentHint\":true,\"openWorldHint\":false},\"timeoutMs\":5000,\"rest\":{\"method\":"
    "\"GET\",\"url\":\"http://127.0.0.1:4480/v1/"
    "convert\",\"queryMapping\":[{\"argument\":\"value\",\"target\":\"value\"},{\"argument\":\"from_unit\",\"target\":"
    "\"from\"},{\"argument\":\"to_unit\",\"target\":\"to\"}],\"egress\":{\"allow\":[\"127.0.0.1:4480\"],\"schemes\":["
    "\"http\"]}}}}",
    "{\"kind\":\"Tool\",\"metadata\":{\"name\":\"plan_meeting\",\"title\":\"One moment in many "
    "zones\",\"description\":\"When a meeting takes place for everybody, and who would be at "
    "work.\",\"visibility\":\"team\",\"team\":\"explorers\",\"owner\":\"admin@example.com\",\"tags\":[\"time\"]},"
    "\"spec\":{\"inputSchemaJson\":{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"zones\","
    "\"zone\",\"time\"],\"properties\":{\"zones\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":50,\"items\":{"
    "\"type\":\"string\"},\"description\":\"Where the others "
    "are.\"},\"zone\":{\"type\":\"string\",\"description\":\"The zone in which the time is "
    "meant.\"},\"time\":{\"type\":\"string\",\"description\":\"Local time without offset such as "
    "2026-11-21T09:30.\"},\"duration_minutes\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":1440}}},"
    "\"annotationsJson\":{\"readOnlyHint\":true,\"idempotentHint\":true,\"openWorldHint\":false},\"timeoutMs\":5000,"
    "\"rest\":{\"method\":\"POST\",\"url\":\"http://127.0.0.1:4480/v1/"
    "meeting\",\"egress\":{\"allow\":[\"127.0.0.1:4480\"],\"schemes\":[\"http\"]}}}}",
    "{\"kind\":\"Tool\",\"metadata\":{\"name\":\"almanac\",\"title\":\"Facts of a day\",\"description\":\"Calendar "
    "facts of one "
    "day.\",\"visibility\":\"team\",\"team\":\"explorers\",\"owner\":\"admin@example.com\",\"tags\":[\"time\"]},"
    "\"spec\":{\"inputSchemaJson\":{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"date\"],"
    "\"properties\":{\"date\":{\"type\":\"string\",\"description\":\"A day such as "
    "2026-11-21.\"}}},\"annotationsJson\":{\"readOnlyHint\":true,\"idempotentHint\":true,\"openWorldHint\":false},"
    "\"timeoutMs\":5000,\"rest\":{\"method\":\"GET\",\"url\":\"http://127.0.0.1:4480/v1/"
    "almanac\",\"queryMapping\":[{\"argument\":\"date\",\"target\":\"date\"}],\"egress\":{\"allow\":[\"127.0.0.1:"
    "4480\"],\"schemes\":[\"http\"]},\"credential\":{\"bearerToken\":\"quickstart-almanac-key\"}}}}",
    "{\"kind\":\"Tool\",\"metadata\":{\"name\":\"service_health\",\"title\":\"Health of the world "
    "clock\",\"description\":\"Whether the world clock "
    "serves.\",\"visibility\":\"team\",\"team\":\"staff\",\"owner\":\"admin@example.com\"},\"spec\":{"
    "\"inputSchemaJson\":{\"type\":\"object\",\"additionalProperties\":false},\"annotationsJson\":{\"readOnlyHint\":"
    "true},\"timeoutMs\":2000,\"rest\":{\"method\":\"GET\",\"url\":\"http://127.0.0.1:4480/"
    "healthz\",\"egress\":{\"allow\":[\"127.0.0.1:4480\"],\"schemes\":[\"http\"]}}}}",
    "{\"kind\":\"Gateway\",\"metadata\":{\"name\":\"notes\",\"title\":\"Notes\",\"description\":\"Keeps short notes "
    "and counts "
    "words.\",\"visibility\":\"public\",\"owner\":\"admin@example.com\"},\"spec\":{\"url\":\"http://127.0.0.1:4481/"
    "mcp\",\"transport\":\"streamable-http\",\"egress\":{\"allow\":[\"127.0.0.1:4481\"],\"schemes\":[\"http\"]},"
    "\"refreshIntervalSeconds\":60,\"timeoutMs\":60000}}",
};

START_TEST(the_quick_start_applies_cleanly_and_its_export_too) {
  struct fixture fixture = {0};
  fixture_start(&fixture);
  struct applied applied = apply(&fixture, quickstart, COUNT(quickstart), false, false);
  must_apply(&applied);
  ck_assert_uint_eq(applied.count, COUNT(quickstart));
  char *documents[COUNT(quickstart)], *text = exported(&fixture), *at = text;
  for (size_t i = 0; i < COUNT(quickstart); i++)
    documents[i] = strsep(&at, "\n");
  applied = apply(&fixture, (const char *const *)documents, COUNT(quickstart), false, true);
  must_apply(&applied);
  for (size_t i = 0; i < applied.count; i++)
    ck_assert_int_eq(applied.actions[i], CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_UNCHANGED);
  base_free(text);
  fixture_end(&fixture);
}
END_TEST

TEST_MAIN("catalog.quickstart", the_quick_start_applies_cleanly_and_its_export_too)

/* run_psg.c: `psg query` and `psg hash`: the state graph for operators. */
#include <string.h>

#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"
#include "wire/pbc/core/spi/psg/v1/psg.pb-c.h"

#define EQUAL CORE__SPI__PSG__V1__FILTER_OPERATOR__FILTER_OPERATOR_EQUAL
#define NOT_EQUAL CORE__SPI__PSG__V1__FILTER_OPERATOR__FILTER_OPERATOR_NOT_EQUAL
#define GREATER CORE__SPI__PSG__V1__FILTER_OPERATOR__FILTER_OPERATOR_GREATER
#define LESS CORE__SPI__PSG__V1__FILTER_OPERATOR__FILTER_OPERATOR_LESS

/* FIELD=VALUE and so on. The members are owned by the filter: filter_clear. */
static bool filter_read(const char *text, Core__Spi__Psg__V1__Filter *filter) {
  size_t field = strcspn(text, "=!<>"), sign = text[field] == '!' ? 2 : 1;
  core__spi__psg__v1__filter__init(filter);
  if (field == 0 || !text[field] || (sign == 2 && text[field + 1] != '='))
    return false;
  filter->operator_ = text[field] == '=' ? EQUAL : text[field] == '!' ? NOT_EQUAL : text[field] == '>' ? GREATER : LESS;
  const char *value = text + field + sign;
  struct buf json = {0};
  if (json_check(value, strlen(value), JSON_DEPTH_MAX, NULL))
    buf_append_text(&json, value);
  else
    buf_append_json_string(&json, value, strlen(value));
  filter->field = base_strndup(text, field);
  filter->value_json.len = json.length;
  filter->value_json.data = (uint8_t *)buf_take(&json);
  return true;
}

static int query_show(const struct ctl *ctl, const Core__Spi__Psg__V1__QueryResponse *reply) {
  static const char *const heads[] = {"TYPE", "ID", "REVISION", "OBJECT"};
  struct buf text = {0};
  if (ctl->output != CTL_OUTPUT_TABLE)
    return ctl_print_message(ctl, &reply->base);
  struct ctl_table *table = ctl_table_create(heads, sizeof(heads) / sizeof(heads[0]));
  for (size_t i = 0; i < reply->n_nodes; i++) {
    const Core__Spi__Psg__V1__Node *node = reply->nodes[i];
    char *object = base_strndup((const char *)node->object_json.data, node->object_json.len);
    ctl_table_cell(table, node->type);
    ctl_table_cell(table, node->id);
    ctl_table_cell_number(table, node->revision);
    ctl_table_cell(table, object);
    base_free(object);
  }
  ctl_table_finish(&table, &text);
  buf_printf(&text, "%zu of %llu nodes\n", reply->n_nodes, (unsigned long long)reply->total);
  int status = ctl_print(&text);
  buf_free(&text);
  return status;
}

int ctl_run_psg_query(struct ctl *ctl) {
  Core__Spi__Psg__V1__QueryRequest request = CORE__SPI__PSG__V1__QUERY_REQUEST__INIT;
  Core__Spi__Psg__V1__QueryResponse *reply = NULL;
  struct error err = {0};
  uint64_t limit, offset;
  size_t count;
  int status = CTL_EXIT_OK;
  if (!ctl_number(ctl, "limit", 0, &limit, &err) || !ctl_number(ctl, "offset", 0, &offset, &err))
    return ctl_fail_usage("%s", err.message);
  if (limit > UINT32_MAX || offset > UINT32_MAX)
    return ctl_fail_usage("--limit and --offset are at most 4294967295");
  char **texts = ctl_texts(ctl, "filter", &count);
  Core__Spi__Psg__V1__Filter *filters = base_calloc(count + 1, sizeof(*filters)),
                             **list = base_calloc(count + 1, sizeof(*list));
  for (size_t i = 0; i < count && status == CTL_EXIT_OK; i++) {
    list[request.n_filters] = &filters[request.n_filters];
    if (filter_read(texts[i], &filters[request.n_filters]))
      request.n_filters++;
    else
      status =
          ctl_fail_usage("--filter is FIELD=VALUE, FIELD!=VALUE, FIELD>VALUE or FIELD<VALUE, not \"%.60s\"", texts[i]);
  }
  request.type = ctl_borrow(ctl->argument_count ? ctl->arguments[0] : NULL);
  request.filters = list;
  request.limit = (uint32_t)limit;
  request.offset = (uint32_t)offset;
  if (status == CTL_EXIT_OK)
    reply = ctl_call_or_fail(ctl, "EventAdminService/QueryNodes", &request.base, &status);
  if (reply)
    status = query_show(ctl, reply);
  ctl_message_free(reply);
  for (size_t i = 0; i < request.n_filters; i++) {
    base_free(filters[i].field);
    base_free(filters[i].value_json.data);
  }
  base_free(filters);
  base_free(list);
  base_free(texts);
  return status;
}

int ctl_run_psg_hash(struct ctl *ctl) {
  const Core__Spi__Psg__V1__GetStateHashRequest request = CORE__SPI__PSG__V1__GET_STATE_HASH_REQUEST__INIT;
  int status;
  Core__Spi__Psg__V1__GetStateHashResponse *reply =
      ctl_call_or_fail(ctl, "EventAdminService/GetStateHash", &request.base, &status);
  if (!reply)
    return status;
  struct buf text = {0};
  buf_printf(&text, "hash   %s\ngraph  %s\nnodes  %llu\nedges  %llu\n", reply->state_hash, reply->graph_id,
             (unsigned long long)reply->node_count, (unsigned long long)reply->edge_count);
  return ctl_answer(ctl, reply, &text);
}

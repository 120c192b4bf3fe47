/* observability.c: ObservabilityService: translation only; observe keeps. */
#include "core/spi/spi_internal.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/spi/observability/v1/observability.pb-c.h"

void spi_observability_emit_logs(const struct spi_call *call) {
  Core__Spi__Observability__V1__EmitLogsResponse response = CORE__SPI__OBSERVABILITY__V1__EMIT_LOGS_RESPONSE__INIT;
  observe_logs_emit(call->spi->options.observe, lifecycle_instance_name(call->instance), (const void *)call->request);
  core_rpc_call_reply_message(call->call, &response.base);
}

void spi_observability_publish_metrics(const struct spi_call *call) {
  Core__Spi__Observability__V1__PublishMetricsResponse response =
      CORE__SPI__OBSERVABILITY__V1__PUBLISH_METRICS_RESPONSE__INIT;
  response.refused = observe_module_publish(call->spi->options.observe, lifecycle_instance_name(call->instance),
                                            (const void *)call->request);
  core_rpc_call_reply_message(call->call, &response.base);
}

void spi_observability_emit_audit(const struct spi_call *call) {
  const Core__Spi__Observability__V1__EmitAuditRequest *request = (const void *)call->request;
  Core__Spi__Observability__V1__EmitAuditResponse response = CORE__SPI__OBSERVABILITY__V1__EMIT_AUDIT_RESPONSE__INIT;
  for (size_t i = 0; i < request->n_records; i++) {
    const Core__Spi__Observability__V1__AuditRecord *record = request->records[i];
    struct error err = {0};
    const struct policy_context *context = record->caller ? spi_caller(call, record->caller, &err) : NULL;
    observe_audit_append(call->spi->options.observe,
                         &(struct observe_audit){
                             .action = record->action,
                             .actor = context ? context->user_email : lifecycle_instance_name(call->instance),
                             .target = record->target ? record->target->name : "",
                             .outcome = record->outcome,
                             .details_json = record->details_json.len ? (const char *)record->details_json.data : NULL,
                             .details_length = record->details_json.len,
                         });
  }
  core_rpc_call_reply_message(call->call, &response.base);
}

void spi_observability_get_metrics(const struct spi_call *call) {
  Core__Spi__Observability__V1__GetMetricsResponse response = CORE__SPI__OBSERVABILITY__V1__GET_METRICS_RESPONSE__INIT;
  struct buf text = {0};
  observe_render(call->spi->options.observe, &text);
  response.text = spi_text(text.data);
  core_rpc_call_reply_message(call->call, &response.base);
  buf_free(&text);
}

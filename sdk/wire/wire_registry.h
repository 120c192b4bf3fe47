/* wire_registry.h: messages and methods of proto/ by name, with protobuf-c descriptors; generated from the descriptor
 * set. Static tables; any thread. */
#ifndef GATEHOUSE_WIRE_REGISTRY_H
#define GATEHOUSE_WIRE_REGISTRY_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

struct wire_method {
  const char *path;    /* "/core.spi.auth.v1.AuthService/Resolve" */
  const char *service; /* full name of the service */
  const char *name;
  const ProtobufCMessageDescriptor *input;
  const ProtobufCMessageDescriptor *output;
  bool client_streaming;
  bool server_streaming;
};

/* All methods, sorted by path. */
const struct wire_method *wire_methods(size_t *count);

/* NULL: no such method. path: "/package.Service/Method". */
const struct wire_method *wire_method_find(const char *path);

/* NULL: no such message. full_name: "core.common.v1.ErrorEnvelope". */
const ProtobufCMessageDescriptor *wire_message_find(const char *full_name);

#endif

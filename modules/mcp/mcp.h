/* mcp.h: the protocol module of MCP, for its main function and its tests. */
#ifndef GATEHOUSE_MCP_H
#define GATEHOUSE_MCP_H

#include "sdk/module/module.h"

extern const struct module_definition mcp_module_definition;

#endif

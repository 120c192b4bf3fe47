/* main.c: gatehouse-mcp: the MCP module as a process. */
#include "modules/mcp/mcp.h"

int main(int argc, char **argv) {
  return module_main(argc, argv, &mcp_module_definition);
}

/* modern_upstream.mjs [PORT]: an upstream MCP server of the stateless era only (2026-07-28), on SDK 2.x. */
import { toNodeHandler } from '@modelcontextprotocol/node';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { addTools, serve } from './upstream.mjs';

function makeServer() {
  const server = new McpServer({ name: 'modern-upstream', version: '1.0.0' }, { instructions: 'An upstream for tests.' });
  addTools((name, config, handler) => server.registerTool(name, config, (given, { mcpReq }) => handler(given, {
    signal: mcpReq.signal,
    notify: async (progress, total) => {
      const progressToken = mcpReq._meta?.progressToken;
      if (progressToken !== undefined) await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total } });
    },
  })));
  return server;
}

serve(toNodeHandler(createMcpHandler(makeServer, { legacy: 'reject' })));

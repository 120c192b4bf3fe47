/* legacy_upstream.mjs [PORT]: an upstream MCP server of the session era only (2025-11-25), on SDK 1.x, with sessions. */
import { randomUUID } from 'node:crypto';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { addTools, serve } from './upstream.mjs';

const sessions = new Map();

function makeServer() {
  const server = new McpServer({ name: 'legacy-upstream', version: '1.0.0' }, { instructions: 'An upstream for tests.' });
  addTools((name, config, handler) => server.registerTool(name, config, (given, extra) => handler(given, {
    signal: extra.signal,
    notify: async (progress, total) => {
      const progressToken = extra._meta?.progressToken;
      if (progressToken !== undefined) await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress, total } });
    },
  })));
  return server;
}

serve(async (request, response) => {
  const known = sessions.get(request.headers['mcp-session-id']);
  if (known) return known.handleRequest(request, response);
  if (request.headers['mcp-session-id']) {
    response.writeHead(404, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code: -32001, message: 'Session not found' } }));
    return undefined;
  }
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => sessions.set(id, transport),
    onsessionclosed: (id) => sessions.delete(id),
  });
  await makeServer().connect(transport);
  return transport.handleRequest(request, response);
});

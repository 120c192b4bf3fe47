/* legacy_client.mjs URL [TOKEN]: a client of the session era (2025-11-25), on SDK 1.x. Steps: drive.mjs. MCP_RECONNECT_MS: how
 * long it waits before it opens a stream again, where it was told nothing. */
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { drive, endpoint } from './drive.mjs';

await drive({
  connect: async () => {
    const { url, requestInit } = endpoint();
    const client = new Client({ name: 'legacy-test-client', version: '1.0.0' });
    const own = Number(process.env.MCP_RECONNECT_MS);
    const reconnectionOptions = { initialReconnectionDelay: own, maxReconnectionDelay: own, reconnectionDelayGrowFactor: 1, maxRetries: 2 };
    const transport = new StreamableHTTPClientTransport(url, { requestInit, ...(own ? { reconnectionOptions } : {}) });
    await client.connect(transport);
    return { client, transport };
  },
  callTool: (client, params, options) => client.callTool(params, undefined, options),
  info: (client, transport) => ({
    protocol: transport.protocolVersion,
    session: transport.sessionId ?? null,
    server: client.getServerVersion(),
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions() ?? null,
  }),
});

/* legacy_client.mjs URL [TOKEN]: a client of the session era (2025-11-25), on SDK 1.x. Steps: drive.mjs. */
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { drive, endpoint } from './drive.mjs';

await drive({
  connect: async () => {
    const { url, requestInit } = endpoint();
    const client = new Client({ name: 'legacy-test-client', version: '1.0.0' });
    const transport = new StreamableHTTPClientTransport(url, { requestInit });
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

/* modern_client.mjs URL [TOKEN]: a client of the stateless era (2026-07-28, pinned), on SDK 2.x. Steps: drive.mjs.
 * With MCP_NEGOTIATE=auto in the environment it probes and falls back to the session era as such clients do in the field. */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { drive, endpoint } from './drive.mjs';

await drive({
  connect: async () => {
    const { url, requestInit } = endpoint();
    const mode = process.env.MCP_NEGOTIATE === 'auto' ? 'auto' : { pin: '2026-07-28' };
    const client = new Client({ name: 'modern-test-client', version: '1.0.0' }, { versionNegotiation: { mode } });
    const transport = new StreamableHTTPClientTransport(url, { requestInit });
    await client.connect(transport);
    return { client, transport };
  },
  callTool: (client, params, options) => client.callTool(params, options),
  info: (client, transport) => ({
    protocol: client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion,
    session: transport.sessionId ?? null,
    server: client.getServerVersion(),
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions() ?? null,
  }),
});

/* upstream.mjs: what the two upstream servers of the tests share: the same four tools in both eras, and the HTTP server. */
import { createServer } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import * as z from 'zod';

const text = (value) => ({ content: [{ type: 'text', text: value }] });

/* register(name, config, handler(arguments, {notify(done, total), signal})) is how one SDK takes a tool. */
export function addTools(register) {
  register('echo', { title: 'Echo', description: 'Answers the text it is given.', inputSchema: z.object({ text: z.string() }) },
    async (given) => text(given.text));
  register('add', {
    title: 'Add',
    description: 'Adds two numbers.',
    inputSchema: z.object({ a: z.number(), b: z.number() }),
    outputSchema: z.object({ sum: z.number() }),
    annotations: { readOnlyHint: true, idempotentHint: true },
  }, async ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { sum: a + b } }));
  register('progress', {
    title: 'Progress',
    description: 'Takes `steps` steps of `delay_ms` each and reports each of them.',
    inputSchema: z.object({ steps: z.number().int().min(1).max(1000), delay_ms: z.number().int().min(0).max(10000).default(10) }),
  }, async ({ steps, delay_ms }, { notify, signal }) => {
    for (let done = 1; done <= steps; done++) {
      await pause(delay_ms, undefined, { signal });
      await notify(done, steps);
    }
    return text(`took ${steps} steps`);
  });
  register('error', { title: 'Error', description: 'Always fails, as a tool.', inputSchema: z.object({ message: z.string().default('it failed') }) },
    async ({ message }) => ({ ...text(message), isError: true }));
}

/* Serves on loopback, prints LISTENING <port>, ends on SIGTERM. `handle(request, response)` owns /mcp. */
export function serve(handle) {
  const server = createServer((request, response) => {
    if (new URL(request.url, 'http://localhost').pathname !== '/mcp') {
      response.writeHead(404).end();
      return;
    }
    Promise.resolve(handle(request, response)).catch((error) => {
      console.error(error);
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => console.log(`LISTENING ${server.address().port}`));
  process.on('SIGTERM', () => process.exit(0));
}

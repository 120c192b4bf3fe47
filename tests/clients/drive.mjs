/* drive.mjs: lets a test hold an MCP client that others wrote, and steer it step by step.
 *
 * A client script connects and hands its client to drive(). Then each line on stdin is a step, a JSON object with `op`, and each line on
 * stdout its outcome: {ok: true, …} or {ok: false, error: {message, code, status}}. End of input closes the client and ends
 * the process. Steps: list; call {name, arguments, progress, cancel_after, timeout_ms}; ping; terminate (session era); info.
 * The first line on stdout is the outcome of connecting. */
import { createInterface } from 'node:readline';

const say = (value) => process.stdout.write(JSON.stringify(value) + '\n');

const failure = (error) => ({
  ok: false,
  error: { name: error?.name, message: String(error?.message ?? error), code: error?.code, status: error?.status ?? error?.data?.status, data: error?.data },
});

/* Every page of the tool list. */
async function list(client) {
  const tools = [];
  let pages = 0;
  let cursor;
  do {
    const page = await client.listTools(cursor === undefined ? undefined : { cursor });
    tools.push(...page.tools);
    cursor = page.nextCursor;
    pages += 1;
  } while (cursor !== undefined);
  return { ok: true, tools, pages };
}

/* One call; with `cancel_after` it is cancelled by the client when that many progress notifications have come. */
async function call(client, step, callTool) {
  const progress = [];
  const abort = new AbortController();
  const options = { signal: abort.signal, timeout: step.timeout_ms ?? 30000 };
  if (step.progress || step.cancel_after !== undefined) {
    options.onprogress = (value) => {
      progress.push(value);
      if (step.cancel_after !== undefined && progress.length >= step.cancel_after) abort.abort('cancelled by the test');
    };
  }
  try {
    const result = await callTool(client, { name: step.name, arguments: step.arguments ?? {} }, options);
    return { ok: true, result, progress };
  } catch (error) {
    return { ...failure(error), progress };
  }
}

/* connect() → {client, transport}; callTool(client, params, options) hides where the two generations of the SDK differ. */
export async function drive({ connect, callTool, info }) {
  let client, transport;
  try {
    ({ client, transport } = await connect());
    say({ ok: true, ...info(client, transport) });
  } catch (error) {
    say(failure(error));
    process.exitCode = 1;
    return;
  }
  const steps = {
    list: () => list(client),
    call: (step) => call(client, step, callTool),
    ping: async () => ({ ok: true, result: await client.ping() }),
    terminate: async () => {
      await transport.terminateSession();
      return { ok: true };
    },
    info: async () => ({ ok: true, ...info(client, transport) }),
  };
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      const step = JSON.parse(line);
      if (!Object.hasOwn(steps, step.op)) throw new Error(`no such step: ${step.op}`);
      say(await steps[step.op](step));
    } catch (error) {
      say(failure(error));
    }
  }
  await client.close();
  process.exit();
}

/* The two arguments of every client script: the endpoint and, optionally, a bearer token. */
export function endpoint() {
  const [url, token] = process.argv.slice(2);
  return { url: new URL(url), requestInit: token ? { headers: { Authorization: `Bearer ${token}` } } : {} };
}

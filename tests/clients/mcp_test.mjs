// An MCP client (npm `@modelcontextprotocol/sdk`) lists and calls Capstan's tools.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const url = new URL(`${process.env.E2B_API_URL}/mcp`);
const headers = process.env.CAPSTAN_API_KEY ? { Authorization: `Bearer ${process.env.CAPSTAN_API_KEY}` } : {};
let client, transport;
before(async () => {
  client = new Client({ name: 'capstan-tests', version: '1' });
  transport = new StreamableHTTPClientTransport(url, { requestInit: { headers } });
  await client.connect(transport);
});
after(async () => {
  await transport.terminateSession();
  await client.close();
});
const call = (name, args) => client.callTool({ name, arguments: args });

test('it says who it is and which tools there are', async () => {
  assert.equal(client.getServerVersion().name, 'capstan');
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((tool) => tool.name).sort(), ['list_files', 'read_file', 'run_code', 'run_command', 'write_file']);
  await client.ping();
});

test('commands run and say how they ended', async () => {
  const good = await call('run_command', { command: 'echo out; echo err >&2' });
  assert.equal(good.isError, false);
  assert.deepEqual(good.structuredContent, { exit_code: 0, ended: 'exited', stdout: 'out\n', stderr: 'err\n', truncated: false });
  const bad = await call('run_command', { command: 'exit 7' });
  assert.deepEqual([bad.isError, bad.structuredContent.exit_code], [true, 7]);
  const late = await call('run_command', { command: 'sleep 100', timeout_s: 1 });
  assert.equal(late.structuredContent.ended, 'wall_time');
});

test('Python keeps its variables, errors are results', async () => {
  await call('run_code', { code: 'x = 20' });
  const good = await call('run_code', { code: 'print("p")\nx * 2' });
  assert.deepEqual(good.structuredContent, { result: '40', stdout: 'p\n', stderr: '', error: '' });
  const bad = await call('run_code', { code: '1/0' });
  assert.equal(bad.isError, true);
  assert.match(bad.content[0].text, /ZeroDivisionError/);
});

test('files are written, read and listed, and are those of commands', async () => {
  const written = await call('write_file', { path: 'notes/a.txt', content: 'line ä\n' });
  assert.deepEqual(written.structuredContent, { path: '/home/user/notes/a.txt', bytes: 8 });
  const read = await call('read_file', { path: 'notes/a.txt' });
  assert.equal(read.structuredContent.content, 'line ä\n');
  const listed = await call('list_files', { path: 'notes' });
  assert.deepEqual(listed.structuredContent.files, [{ name: 'a.txt', type: 'file', bytes: 8 }]);
  assert.match((await call('run_command', { command: 'cat notes/a.txt' })).structuredContent.stdout, /line ä/);
});

test('what is asked wrongly is a result that says what would be right', async () => {
  const missing = await call('read_file', { path: 'none' });
  assert.equal(missing.isError, true);
  const argument = await call('run_command', {});
  assert.match(argument.content[0].text, /'command' is missing/);
  await assert.rejects(call('no_such_tool', {}), /no tool/);
});

test('a call that is cancelled ends its command', async () => {
  const stop = new AbortController();
  const running = client.callTool({ name: 'run_command', arguments: { command: 'sleep 300; echo done > cancelled' } }, undefined,
    { signal: stop.signal });
  setTimeout(() => stop.abort(), 300);
  await assert.rejects(running);
  const seen = await call('run_command', { command: 'sleep 0.5; pgrep -c sleep || true; ls cancelled 2>&1 || true' });
  assert.match(seen.structuredContent.stdout, /^(0|1)\n/);
});

test('a session that is unknown must be begun again', async () => {
  const answer = await fetch(url, {
    method: 'POST', body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' }),
    headers: { ...headers, 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream', 'Mcp-Session-Id': 'none' },
  });
  assert.equal(answer.status, 404);
  const foreign = await fetch(url, { method: 'POST', body: '{}', headers: { ...headers, Origin: 'https://elsewhere.example' } });
  assert.equal(foreign.status, 403);
});

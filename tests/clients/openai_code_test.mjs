// The official `openai` client and the Responses API's code interpreter: abacus calls Python by itself for a sum that is too
// long for its working. Environment: settings.mjs; needs sandboxes.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import OpenAI, { toFile } from 'openai';
import { key, model, url } from './settings.mjs';

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 2, timeout: 120_000 });
const tools = [{ type: 'code_interpreter', container: { type: 'auto' } }];
const include = ['code_interpreter_call.outputs'];
const product = 'What is 123456789 * 987654321?', answer = '121932631112635269';
const ask = (input, more = {}) => client.responses.create({ model, input, temperature: 0, tools, include, ...more });
const callOf = (response) => response.output.find((item) => item.type === 'code_interpreter_call');

test('a whole answer, with the code, what it printed and the usage of all turns', async () => {
  const response = await ask(product);
  assert.equal(response.status, 'completed');
  assert.equal(response.output_text, answer);
  const call = callOf(response);
  assert.equal(call.status, 'completed');
  assert.match(call.code, /123456789 \* 987654321/);
  assert.equal(call.outputs[0].logs.trim(), answer);
  assert.match(call.container_id, /^cntr_/);
  assert.equal(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens);
  const plain = await ask(product, { include: [] });
  assert.equal(callOf(plain).outputs, null);
  assert.equal(callOf(await client.responses.retrieve(plain.id, { include })).outputs[0].logs.trim(), answer);
});

test('a stream has the events of the code in order', async () => {
  const types = [];
  let last;
  const stream = client.responses.stream({ model, input: product, temperature: 0, tools });
  for await (const event of stream) { types.push(event.type); last = event; }
  const code = types.filter((type) => type.startsWith('response.code_interpreter_call'));
  assert.ok(code.filter((type) => type.endsWith('_code.delta')).length >= 1);
  assert.deepEqual([...new Set(code)], ['_call.in_progress', '_call_code.delta', '_call_code.done', '_call.interpreting', '_call.completed']
    .map((end) => `response.code_interpreter${end}`));
  assert.equal(last.type, 'response.completed');
  assert.equal((await stream.finalResponse()).output_text, answer);
});

test('a conversation goes on in its container, and the container is named again', async () => {
  const first = await ask(product);
  const container = callOf(first).container_id;
  const second = await ask('What is 987654321 * 123456788?', { previous_response_id: first.id });
  assert.equal(callOf(second)?.container_id ?? container, container);
  const third = await ask(product, { tools: [{ type: 'code_interpreter', container }] });
  assert.equal(callOf(third).container_id, container);
  await assert.rejects(ask(product, { tools: [{ type: 'code_interpreter', container: 'cntr_0' }] }), OpenAI.NotFoundError);
});

test('a file that was uploaded is in the container', async () => {
  const file = await client.files.create({ purpose: 'user_data', file: await toFile(Buffer.from('1,2\n'), 'sums.csv') });
  const container = callOf(await ask(product, { tools: [{ type: 'code_interpreter', container: { type: 'auto', file_ids: [file.id] } }] })).container_id;
  const headers = { 'x-api-key': key };
  const [session] = await (await fetch(`${url}/v2/sandboxes?metadata=openai_container%3D${container}`, { headers })).json();
  const { envdAccessToken } = await (await fetch(`${url}/sandboxes/${session.sandboxID}`, { headers })).json();
  const read = await fetch(`${url}/files?path=sums.csv`, { headers: { 'e2b-sandbox-id': session.sandboxID, 'x-access-token': envdAccessToken } });
  assert.equal(await read.text(), '1,2\n');
});

test('containers and their files, by hand', async () => {
  const file = await client.files.create({ purpose: 'user_data', file: await toFile(Buffer.from('a,b\n'), 'table.csv') });
  const made = await client.containers.create({ name: 'mine', file_ids: [file.id], expires_after: { anchor: 'last_active_at', minutes: 20 } });
  assert.match(made.id, /^cntr_/);
  assert.ok(Math.abs(made.created_at - Date.now() / 1000) < 60 && made.last_active_at >= made.created_at - 1, JSON.stringify(made));
  const added = await client.containers.files.create(made.id, { file: await toFile(Buffer.from([0, 255, 7]), 'bytes.bin') });
  assert.equal(added.bytes, 3);
  const call = callOf(await ask(product, { tools: [{ type: 'code_interpreter', container: made.id }] }));
  assert.equal(call.container_id, made.id);
  const paths = [];
  for await (const one of client.containers.files.list(made.id, { limit: 1 })) paths.push(one.path);
  assert.deepEqual(paths.sort(), ['bytes.bin', 'table.csv']);
  const content = await client.containers.files.content.retrieve(added.id, { container_id: made.id });
  assert.deepEqual([...new Uint8Array(await content.arrayBuffer())], [0, 255, 7]);
  assert.equal((await client.containers.files.retrieve(added.id, { container_id: made.id })).path, 'bytes.bin');
  await client.containers.files.delete(added.id, { container_id: made.id });
  await assert.rejects(client.containers.files.content.retrieve(added.id, { container_id: made.id }), OpenAI.NotFoundError);
  const listed = [];
  for await (const one of client.containers.list({ limit: 2 })) listed.push(one.id);
  assert.ok(listed.includes(made.id), listed.join());
  assert.equal((await client.containers.retrieve(made.id)).name, 'mine');
  await client.containers.delete(made.id);
  await assert.rejects(client.containers.retrieve(made.id), OpenAI.NotFoundError);
  await assert.rejects(client.containers.create({ name: 'x', memory_limit: '4g' }), (error) => error.param === 'memory_limit');
});

test('in the background', async () => {
  let response = await ask(product, { background: true });
  while (['queued', 'in_progress'].includes(response.status)) {
    await sleep(50);
    response = await client.responses.retrieve(response.id);
  }
  assert.equal(response.output_text, answer);
});

test('what containers do not offer is refused by name', async () => {
  const container = { type: 'auto', memory_limit: '4g' };
  await assert.rejects(ask(product, { tools: [{ type: 'code_interpreter', container }] }), (error) =>
    error.status === 400 && error.param === 'tools[0].container.memory_limit' && error.code === 'unsupported_parameter');
  const unknown = { type: 'auto', file_ids: ['file-1'] };
  await assert.rejects(ask(product, { tools: [{ type: 'code_interpreter', container: unknown }] }), OpenAI.NotFoundError);
});

// The official `openai` client: stored chat completions, responses, files, batches, embeddings, Bedrock's address. Environment: settings.mjs.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import OpenAI, { toFile } from 'openai';
import { BedrockOpenAI } from 'openai/bedrock';
import { expected, key, model, needsScript, question, url } from './settings.mjs';

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 2, timeout: 60_000 });
const ask = (input, more = {}) => client.responses.create({ model, input, temperature: 0, ...more });

test('chat completions: stored ones are listed, read, labelled and deleted', async () => {
  const label = { run: String(Math.random()) }, messages = [{ role: 'user', content: question }];
  const ask = { model, temperature: 0, messages, store: true, metadata: label };
  const whole = await client.chat.completions.create(ask);
  const text = whole.choices[0].message.content;
  for await (const _ of await client.chat.completions.create({ ...ask, stream: true }));
  const kept = [];
  for await (const each of client.chat.completions.list({ metadata: label, limit: 1 })) kept.push(each);
  assert.deepEqual(kept.map((each) => [each.object, each.choices[0].message.content, each.metadata]), Array(2).fill(['chat.completion', text, label]));
  assert.deepEqual(await client.chat.completions.retrieve(whole.id), kept[0]);
  const asked = [];
  for await (const message of client.chat.completions.messages.list(whole.id)) asked.push([message.id, message.role, message.content]);
  assert.deepEqual(asked, [[`${whole.id}-0`, 'user', question]]);
  assert.deepEqual((await client.chat.completions.update(whole.id, { metadata: { a: 'b' } })).metadata, { a: 'b' });
  assert.deepEqual((await client.chat.completions.delete(whole.id)).deleted, true);
  await assert.rejects(client.chat.completions.retrieve(whole.id), OpenAI.NotFoundError);
});

test('responses: a whole answer with reasoning and usage', async () => {
  const response = await ask(question);
  assert.equal(response.status, 'completed');
  assert.ok(response.output_text.includes(expected), response.output_text);
  assert.deepEqual(response.output.map((item) => item.type), ['reasoning', 'message']);
  assert.equal(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens);
  assert.ok(response._request_id);
});

test('responses: a stream has its events in order and says the same', async () => {
  const whole = await ask(question);
  const events = [];
  for await (const event of await ask(question, { stream: true })) events.push(event);
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, at) => at));
  assert.deepEqual(events.slice(0, 2).map((event) => event.type), ['response.created', 'response.in_progress']);
  assert.equal(events.at(-1).type, 'response.completed');
  const text = events.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta).join('');
  assert.equal(text, whole.output_text);
  const runner = client.responses.stream({ model, input: question, temperature: 0 });
  assert.equal((await runner.finalResponse()).output_text, whole.output_text);
});

test('responses: stored ones are found, continued and deleted', async () => {
  const first = await ask(question);
  assert.equal((await client.responses.retrieve(first.id)).output_text, first.output_text);
  const second = await ask(question, { previous_response_id: first.id });
  assert.equal(second.previous_response_id, first.id);
  const items = [];
  for await (const item of client.responses.inputItems.list(second.id)) items.push(item);
  assert.ok(items.length >= 3, `${items.length} items`);
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test('responses: a conversation goes on, and its tokens are counted', async () => {
  const conversation = await client.conversations.create({ metadata: { topic: 'sums' }, items: [{ role: 'user', content: question }] });
  const first = await ask(question, { conversation: conversation.id });
  assert.equal(first.conversation.id, conversation.id);
  for await (const _ of await ask(question, { conversation: conversation.id, stream: true, store: false }));
  const items = [];
  for await (const item of client.conversations.items.list(conversation.id, { order: 'asc', limit: 2 })) items.push(item.type);
  assert.deepEqual(items, ['message', 'message', 'reasoning', 'message', 'message', 'reasoning', 'message']);
  assert.deepEqual((await client.conversations.update(conversation.id, { metadata: { topic: 'more' } })).metadata, { topic: 'more' });
  const counted = await client.responses.inputTokens.count({ model, input: question });
  assert.ok(counted.input_tokens > 0 && counted.input_tokens < first.usage.input_tokens, `${counted.input_tokens} tokens`);
  await client.conversations.delete(conversation.id);
  await assert.rejects(client.conversations.retrieve(conversation.id), OpenAI.NotFoundError);
});

test('responses: stateless ones take their sealed reasoning back', async () => {
  const include = ['reasoning.encrypted_content'];
  const first = await ask(question, { store: false, include });
  const [reasoning] = first.output;
  assert.ok(reasoning.encrypted_content);
  const input = [{ role: 'user', content: question }, ...first.output, { role: 'user', content: question }];
  assert.ok((await ask(input, { store: false, include })).output_text);
  const sealed = reasoning.encrypted_content;
  reasoning.encrypted_content = (sealed.startsWith('00') ? 'ff' : '00') + sealed.slice(2);
  reasoning.content = [];
  await assert.rejects(ask(input, { store: false }), (error) => error.status === 400 && error.code === 'invalid_encrypted_content');
});

test('responses: a function is called and its result becomes the answer', { skip: needsScript }, async () => {
  const tools = [{ type: 'web_search' }, { type: 'function', name: 'add', strict: true, parameters: { type: 'object', properties: {} } }];
  const input = [{ role: 'user', content: 'call add {"a":2}' }];
  const first = await ask(input, { tools });
  const call = first.output.find((item) => item.type === 'function_call');
  assert.equal(call.name, 'add');
  assert.deepEqual(JSON.parse(call.arguments), { a: 2 });
  const output = [{ type: 'function_call_output', call_id: call.call_id, output: '4' }];
  assert.equal((await ask(output, { tools, previous_response_id: first.id })).output_text, 'The result is 4.');
});

test('responses: in the background, fetched when it is done', async () => {
  let response = await ask(question, { background: true });
  while (['queued', 'in_progress'].includes(response.status)) {
    await sleep(50);
    response = await client.responses.retrieve(response.id);
  }
  assert.equal(response.status, 'completed');
  assert.ok(response.output_text.includes(expected));
});

test('responses: a stream in the background, followed from its middle', async () => {
  const events = [];
  for await (const event of await ask(question, { background: true, stream: true })) events.push(event);
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, number) => number));
  assert.deepEqual(events.slice(0, 3).map((event) => event.type), ['response.created', 'response.queued', 'response.in_progress']);
  assert.equal(events.at(-1).type, 'response.completed');
  const rest = [];
  for await (const event of await client.responses.retrieve(events[0].response.id, { stream: true, starting_after: 3 })) rest.push(event);
  assert.deepEqual(rest, events.slice(4));
});

test('files: a large one goes up and down', async () => {
  const content = Buffer.alloc(48 << 20, 'capstan ');
  const file = await client.files.create({ purpose: 'user_data', file: await toFile(content, 'large.bin') });
  assert.equal(file.bytes, content.length);
  assert.ok(Buffer.from(await (await client.files.content(file.id)).arrayBuffer()).equals(content));
  await client.files.delete(file.id);
});

test('responses: a stream that breaks off ends as failed', { skip: needsScript }, async () => {
  const types = [];
  for await (const event of await ask('please break off', { stream: true })) types.push(event.type);
  assert.equal(types.at(-1), 'response.failed');
});

test('responses: errors have their class and code', async () => {
  await assert.rejects(client.responses.create({ model: 'nothing', input: 'x' }), OpenAI.NotFoundError);
  await assert.rejects(ask(question, { temperature: 'hot' }), (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature');
});

test('batches: a file of requests becomes a file of answers', async () => {
  const lines = ['a', 'b', 'c'].map((custom_id) => ({
    custom_id, method: 'POST', url: '/v1/chat/completions', body: { model, temperature: 0, messages: [{ role: 'user', content: question }] },
  }));
  lines.push({ ...lines[0], custom_id: 'd', body: { ...lines[0].body, temperature: 9 } });
  const content = lines.map((line) => JSON.stringify(line)).join('\n');
  const file = await client.files.create({ file: await toFile(Buffer.from(content), 'in.jsonl'), purpose: 'batch' });
  assert.equal(file.bytes, content.length);
  let batch = await client.batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' });
  assert.equal(batch.status, 'validating');
  while (!['completed', 'failed'].includes(batch.status)) {
    await sleep(50);
    batch = await client.batches.retrieve(batch.id);
  }
  assert.deepEqual(batch.request_counts, { total: 4, completed: 3, failed: 1 });
  const answers = (await (await client.files.content(batch.output_file_id)).text()).trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(answers.map((line) => line.custom_id), ['a', 'b', 'c']);
  assert.ok(answers[0].response.body.choices[0].message.content.includes(expected));
  const errors = await (await client.files.content(batch.error_file_id)).text();
  assert.equal(JSON.parse(errors).response.status_code, 400);
  const ids = [];
  for await (const one of client.batches.list({ limit: 1 })) ids.push(one.id);
  assert.ok(ids.includes(batch.id));
  assert.equal((await client.files.delete(file.id)).deleted, true);
  await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
});

test('embeddings: a model without them says so', async () => {
  await assert.rejects(client.embeddings.create({ model, input: 'x' }), (error) => error.status === 400 && /gives no embeddings|does not give embeddings/.test(error.message));
});

test('OpenAI client for Bedrock: /openai/v1 with a bearer key', async () => {
  const bedrock = new BedrockOpenAI({ baseURL: `${url}/openai/v1`, apiKey: key });
  assert.ok((await bedrock.responses.create({ model, input: question, temperature: 0 })).output_text.includes(expected));
});

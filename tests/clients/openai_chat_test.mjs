// The official `openai` client against a running server: what people do with it must work, unchanged.
//
//   CAPSTAN_BASE_URL=http://127.0.0.1:8080/v1 node openai_chat_test.mjs
//
// CAPSTAN_MODEL: the model (abacus).  CAPSTAN_EXPECT: what the answer to the question contains (57603; empty: not checked).
// The model `scripted` is scripted_engine.mjs, which can be told to fail.
// CAPSTAN_TOOLS=1: the model calls the python tool for long products.  CAPSTAN_GATEWAY=1: the server is the gateway, not a replica.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import OpenAI from 'openai';

const baseURL = process.env.CAPSTAN_BASE_URL ?? 'http://127.0.0.1:8080/v1';
const model = process.env.CAPSTAN_MODEL ?? 'abacus';
const expected = process.env.CAPSTAN_EXPECT ?? '57603';
const withTools = process.env.CAPSTAN_TOOLS === '1';
const withGateway = process.env.CAPSTAN_GATEWAY === '1';
const client = new OpenAI({ baseURL, apiKey: 'unused', maxRetries: 0, timeout: 60_000 });

const question = 'What is 48217 + 9386?';
const ask = (content, more = {}) => ({ model, temperature: 0, messages: [{ role: 'user', content }], ...more });
const chat = (content, more) => client.chat.completions.create(ask(content, more));

function checkUsage(usage) {
  assert.ok(usage.prompt_tokens > 0, 'prompt_tokens');
  assert.ok(usage.completion_tokens > 0, 'completion_tokens');
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
}

// A stream put together: all chunks, the text of each kind, what ended it.
async function collect(stream) {
  const all = { chunks: [], content: '', reasoning: '', finish: [], calls: [] };
  for await (const chunk of stream) {
    all.chunks.push(chunk);
    for (const { delta, finish_reason } of chunk.choices) {
      all.content += delta.content ?? '';
      all.reasoning += delta.reasoning ?? '';
      if (finish_reason) all.finish.push(finish_reason);
      for (const call of delta.tool_calls ?? []) {
        const known = (all.calls[call.index] ??= { id: '', name: '', arguments: '' });
        known.id += call.id ?? '';
        known.name += call.function?.name ?? '';
        known.arguments += call.function?.arguments ?? '';
      }
    }
  }
  return all;
}

test('models: the list names the model and each can be retrieved', async () => {
  const ids = [];
  for await (const one of client.models.list()) ids.push(one.id);
  assert.ok(ids.includes(model), `${model} is not among ${ids}`);
  const one = await client.models.retrieve(model);
  assert.equal(one.id, model);
  assert.equal(one.object, 'model');
});

test('chat: a whole answer with reasoning, usage and ids', async () => {
  const whole = await chat(question);
  assert.equal(whole.object, 'chat.completion');
  assert.match(whole.id, /^chatcmpl-/);
  assert.equal(whole.model, model);
  assert.ok(Math.abs(whole.created - Date.now() / 1000) < 120, `created is ${whole.created}`);
  assert.ok(whole._request_id, '_request_id');
  assert.equal(whole.choices.length, 1);
  const [{ message, finish_reason, index }] = whole.choices;
  assert.equal(index, 0);
  assert.equal(finish_reason, 'stop');
  assert.equal(message.role, 'assistant');
  assert.ok(message.content.includes(expected), `no ${expected} in: ${message.content}`);
  assert.ok(message.reasoning.length > 0, 'reasoning');
  assert.equal(message.reasoning_content, message.reasoning);
  checkUsage(whole.usage);
});

test('chat: a stream says the same, role first and usage last', async () => {
  const whole = await chat(question);
  const { data, request_id } = await client.chat.completions
    .create(ask(question, { stream: true, stream_options: { include_usage: true } }))
    .withResponse();
  assert.ok(request_id, 'request id');
  const all = await collect(data);
  assert.equal(all.chunks[0].choices[0].delta.role, 'assistant');
  assert.equal(all.content, whole.choices[0].message.content);
  assert.equal(all.reasoning, whole.choices[0].message.reasoning);
  assert.deepEqual(all.finish, ['stop']);
  const counted = all.chunks.filter((chunk) => chunk.usage);
  assert.equal(counted.length, 1);
  assert.equal(counted[0], all.chunks.at(-1));
  assert.deepEqual(counted[0].choices, []);
  assert.deepEqual(counted[0].usage, whole.usage);
  assert.ok(all.chunks.length > 4, `only ${all.chunks.length} chunks: that is no stream`);
  assert.equal(new Set(all.chunks.map((chunk) => chunk.id)).size, 1);
  for (const chunk of all.chunks) assert.equal(chunk.object, 'chat.completion.chunk');
});

test('chat: without include_usage no chunk is empty', async () => {
  const all = await collect(await chat(question, { stream: true }));
  for (const chunk of all.chunks) assert.equal(chunk.choices.length, 1);
});

test('chat: the helper stream() puts the same answer together', async () => {
  const runner = client.chat.completions.stream(ask(question));
  let events = 0;
  runner.on('content', () => (events += 1));
  const final = await runner.finalChatCompletion();
  const whole = await chat(question);
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
  assert.equal(final.choices[0].finish_reason, 'stop');
  assert.ok(events > 0, 'content events');
});

test('errors: an unknown model is NotFoundError', async () => {
  await assert.rejects(client.chat.completions.create({ ...ask(question), model: 'no-such-model' }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError, String(error));
    assert.equal(error.code, 'model_not_found');
    assert.ok(error.requestID, 'requestID');
    return true;
  });
  await assert.rejects(client.models.retrieve('no-such-model'), OpenAI.NotFoundError);
});

test('errors: a parameter out of range is BadRequestError and names it', async () => {
  for (const stream of [false, true]) {
    await assert.rejects(chat(question, { temperature: 9, stream }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError, String(error));
      assert.equal(error.param, 'temperature');
      assert.equal(error.type, 'invalid_request_error');
      return true;
    });
  }
  await assert.rejects(client.chat.completions.create({ model, messages: 'hello' }), OpenAI.BadRequestError);
});

test('abort: a client that leaves mid-stream harms nobody', async () => {
  for (let round = 0; round < 5; round += 1) {
    const stream = await chat(question, { stream: true });
    let seen = 0;
    for await (const chunk of stream) {
      // Chunks that came with the second one are still told after it.
      if ((seen += 1) <= 2) assert.equal(chunk.choices[0].finish_reason, null);
      if (seen === 2) stream.controller.abort();
    }
    assert.ok(seen >= 2, `${seen} chunks before the abort`);
  }
  const whole = await chat(question);
  assert.ok(whole.choices[0].message.content.includes(expected));
});

test('limits: max_tokens and max_completion_tokens end the answer after that many tokens', async () => {
  for (const limit of [{ max_tokens: 5 }, { max_completion_tokens: 5 }]) {
    const whole = await chat(question, limit);
    assert.equal(whole.choices[0].finish_reason, 'length');
    assert.equal(whole.usage.completion_tokens, 5);
    checkUsage(whole.usage);
  }
  const all = await collect(await chat(question, { max_tokens: 5, stream: true }));
  assert.deepEqual(all.finish, ['length']);
});

test('sampling: a seed makes an answer repeatable', async () => {
  const [first, second] = [await chat(question, { temperature: 1, seed: 7 }), await chat(question, { temperature: 1, seed: 7 })];
  assert.equal(second.choices[0].message.content, first.choices[0].message.content);
  assert.equal(second.choices[0].message.reasoning, first.choices[0].message.reasoning);
});

test('stop: the answer ends before the stop sequence, whole or streamed', async () => {
  const { content } = (await chat(question)).choices[0].message;
  const stop = content.slice(-3, -1);
  const wanted = content.slice(0, content.indexOf(stop));
  const whole = await chat(question, { stop: [stop] });
  assert.equal(whole.choices[0].message.content ?? '', wanted);
  assert.equal(whole.choices[0].finish_reason, 'stop');
  const all = await collect(await chat(question, { stop, stream: true }));
  assert.equal(all.content, wanted);
  assert.deepEqual(all.finish, ['stop']);
});

test('concurrency: streams at once do not mix', async () => {
  const questions = [question, 'What is 1203 + 4410?', 'What is 77777 - 4321?', 'What is 812 + 99?'];
  const alone = [];
  for (const one of questions) alone.push((await chat(one)).choices[0].message.content);
  const together = await Promise.all(questions.map(async (one) => collect(await chat(one, { stream: true }))));
  assert.deepEqual(together.map((all) => all.content), alone);
  for (const all of together) assert.equal(new Set(all.chunks.map((chunk) => chunk.id)).size, 1);
  assert.equal(new Set(together.map((all) => all.chunks[0].id)).size, questions.length);
});

test('completions: the older endpoint continues a prompt', async () => {
  const whole = await client.completions.create({ model, prompt: question, max_tokens: 4, temperature: 0 });
  assert.equal(whole.object, 'text_completion');
  assert.equal(typeof whole.choices[0].text, 'string');
  assert.ok(whole.usage.completion_tokens <= 4);
  checkUsage(whole.usage);
});

test('alias: /openai/v1 serves the same', { skip: !withGateway && 'not the gateway' }, async () => {
  const alias = client.withOptions({ baseURL: baseURL.replace(/\/v1\/?$/, '/openai/v1') });
  const whole = await alias.chat.completions.create(ask(question));
  assert.ok(whole.choices[0].message.content.includes(expected));
});

const notScripted = model !== 'scripted' && 'needs a replica that fails when asked to';

test('retries: the client tries again after 503, as long as it may', { skip: notScripted }, async () => {
  const patient = client.withOptions({ maxRetries: 2 });
  const whole = await patient.chat.completions.create(ask(`busy 2 ${randomUUID()}`));
  assert.equal(whole.choices[0].finish_reason, 'stop');
  await assert.rejects(chat(`busy 1 ${randomUUID()}`), (error) => {
    assert.ok(error instanceof OpenAI.InternalServerError, String(error));
    assert.equal(error.status, 503);
    assert.equal(error.code, 'model_not_ready');
    return true;
  });
});

test('break: a stream that breaks off raises an error', { skip: notScripted }, async () => {
  await assert.rejects(async () => collect(await chat('please break off', { stream: true })), (error) => {
    if (withGateway) assert.equal(error.code, 'replica_lost');
    return true;
  });
  assert.ok((await chat(question)).choices[0].message.content);
});

const product = 'What is 123456789 * 987654321?';
const productResult = '121932631112635269';
const tools = [{
  type: 'function',
  function: {
    name: 'python',
    description: 'Runs Python code and returns what it prints.',
    parameters: { type: 'object', properties: { code: { type: 'string' } }, required: ['code'] },
  },
}];

function checkCode(text) {
  const { code } = JSON.parse(text);
  for (const factor of ['123456789', '987654321']) assert.ok(code.includes(factor), `no ${factor} in: ${code}`);
}

test('tools: a long product is a call of python, and its result becomes the answer', { skip: !withTools && 'no tools' }, async () => {
  const whole = await chat(product, { tools });
  const [{ message, finish_reason }] = whole.choices;
  assert.equal(finish_reason, 'tool_calls');
  assert.equal(message.tool_calls.length, 1);
  const [call] = message.tool_calls;
  assert.equal(call.type, 'function');
  assert.equal(call.function.name, 'python');
  assert.ok(call.id, 'call id');
  checkCode(call.function.arguments);

  const messages = [
    { role: 'user', content: product }, message, { role: 'tool', tool_call_id: call.id, content: `${productResult}\n` },
  ];
  const final = await client.chat.completions.create({ model, temperature: 0, tools, messages });
  assert.equal(final.choices[0].finish_reason, 'stop');
  assert.ok(final.choices[0].message.content.replace(/[,_ ]/g, '').includes(productResult), final.choices[0].message.content);
});

test('tools: a streamed call comes whole', { skip: !withTools && 'no tools' }, async () => {
  const all = await collect(await chat(product, { tools, stream: true }));
  assert.deepEqual(all.finish, ['tool_calls']);
  assert.equal(all.calls.length, 1);
  assert.equal(all.calls[0].name, 'python');
  assert.ok(all.calls[0].id, 'call id');
  checkCode(all.calls[0].arguments);
});

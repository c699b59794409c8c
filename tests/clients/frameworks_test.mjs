// Frameworks over the official APIs: the AI SDK, LangChain, OpenAI's agents and its command line codex. Environment: settings.mjs.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createAmazonBedrock } from '@ai-sdk/amazon-bedrock';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { BedrockRuntimeClient } from '@aws-sdk/client-bedrock-runtime';
import { ChatBedrockConverse } from '@langchain/aws';
import { ChatOpenAI } from '@langchain/openai';
import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from '@openai/agents';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { generateText, stepCountIs, streamText, tool as aiTool } from 'ai';
import { z } from 'zod';
import { expected, key, model, needsScript, question, url } from './settings.mjs';

const baseURL = `${url}/v1`;
const sigv4 = { accessKeyId: process.env.AWS_ACCESS_KEY_ID ?? 'AKIDEXAMPLE', secretAccessKey: process.env.AWS_SECRET_ACCESS_KEY ?? 'secret' };
const openai = createOpenAI({ baseURL, apiKey: key });
const models = {
  'openai, responses': openai(model),
  'openai, chat': openai.chat(model),
  'openai-compatible': createOpenAICompatible({ name: 'capstan', baseURL, apiKey: key })(model),
  'amazon-bedrock, SigV4': createAmazonBedrock({ region: 'us-east-1', baseURL: url, ...sigv4 })(model),
  'amazon-bedrock, bearer': createAmazonBedrock({ region: 'us-east-1', baseURL: url, apiKey: key })(model),
};

for (const [name, one] of Object.entries(models)) {
  test(`ai with ${name}: whole and as a stream`, async () => {
    const whole = await generateText({ model: one, prompt: question, temperature: 0, maxRetries: 0 });
    assert.ok(whole.text.includes(expected), whole.text);
    assert.equal(whole.finishReason, 'stop');
    assert.ok(whole.usage.outputTokens > 0);
    const stream = streamText({ model: one, prompt: question, temperature: 0, maxRetries: 0, onError() {} });
    let text = '';
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, whole.text);
  });

  test(`ai with ${name}: a tool is called and its result becomes the answer`, { skip: needsScript }, async () => {
    const add = aiTool({ description: 'adds', inputSchema: z.object({ a: z.number() }), execute: async ({ a }) => `${a + 2}` });
    const { text, steps } = await generateText({ model: one, prompt: 'call add {"a":2}', tools: { add }, stopWhen: stepCountIs(3), maxRetries: 0 });
    assert.equal(steps.length, 2);
    assert.match(text, /The result is .*4/);
  });
}

for (const useResponsesApi of [false, true]) {
  test(`@langchain/openai, ${useResponsesApi ? 'responses' : 'chat'}`, async () => {
    const chat = new ChatOpenAI({ model, apiKey: key, temperature: 0, maxRetries: 0, useResponsesApi, configuration: { baseURL } });
    const whole = await chat.invoke(question);
    assert.ok(whole.text.includes(expected), whole.text);
    assert.ok(whole.usage_metadata.output_tokens > 0);
    let text = '';
    for await (const chunk of await chat.stream(question)) text += chunk.text;
    assert.equal(text, whole.text);
  });
}

test('@langchain/aws', async (t) => {
  const handler = process.env.CAPSTAN_HTTP2 === '0' ? { requestHandler: new NodeHttpHandler() } : {};
  const client = new BedrockRuntimeClient({ region: 'us-east-1', endpoint: url, credentials: sigv4, ...handler });
  t.after(() => client.destroy());
  const chat = new ChatBedrockConverse({ model, client, region: 'us-east-1', temperature: 0, maxRetries: 0 });
  const whole = await chat.invoke(question);
  assert.ok(whole.text.includes(expected), whole.text);
  let text = '';
  for await (const chunk of await chat.stream(question)) text += chunk.text;
  assert.ok(text.includes(expected), text);
});

test('@openai/agents: an agent uses its tool, whole and as a stream', { skip: needsScript }, async () => {
  setTracingDisabled(true);
  const add = tool({ name: 'add', description: 'adds', parameters: z.object({ a: z.number() }), execute: async ({ a }) => `${a + 2}` });
  for (const useResponses of [true, false]) {
    const runner = new Runner({ modelProvider: new OpenAIProvider({ apiKey: key, baseURL, useResponses }) });
    const agent = new Agent({ name: 'adder', instructions: 'Use the tool.', model, tools: [add] });
    assert.equal((await runner.run(agent, 'call add {"a":2}')).finalOutput, 'The result is 4.');
    const stream = await runner.run(agent, 'call add {"a":5}', { stream: true });
    for await (const _ of stream);
    assert.equal(stream.finalOutput, 'The result is 7.');
  }
});

// Runs a program to its end; its standard output.
function run(command, args, options) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '', errors = '';
    child.stdout.on('data', (piece) => (output += piece));
    child.stderr.on('data', (piece) => (errors += piece));
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(output) : reject(new Error(`${command} ended with ${code}: ${errors.slice(-2000)}`))));
  });
}

test('@openai/codex: codex exec runs to completion', { skip: needsScript, timeout: 60_000 }, async (t) => {
  const home = mkdtempSync(join(tmpdir(), 'codex-'));
  t.after(() => rmSync(home, { recursive: true, force: true }));
  const provider = `model_providers.capstan={name="Capstan",base_url="${baseURL}",wire_api="responses",env_key="CAPSTAN_CODEX_KEY"}`;
  const codex = join(dirname(fileURLToPath(import.meta.url)), 'node_modules/@openai/codex/bin/codex.js');
  const args = [codex, 'exec', '--skip-git-repo-check', '--sandbox', 'read-only', '-c', provider, '-c', 'model_provider="capstan"', '-m', model, 'Say hello'];
  const output = await run(process.execPath, args, { cwd: home, env: { ...process.env, CODEX_HOME: home, HOME: home, CAPSTAN_CODEX_KEY: key } });
  assert.match(output, /The scripted answer to "[^]*Say hello[^]*" is \d+\./);
});

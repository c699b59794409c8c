// A replica without a model: an OpenAI-compatible server whose answers follow from the request alone.
//
//   PORT=8081 node scripted_engine.mjs         SCRIPTED_MODEL: the served name (scripted); SCRIPTED_DELAY_MS: per token (1)
//
// A token is a word with the space after it. First comes reasoning, then `The scripted answer to "PROMPT" is N.`, where N is a
// checksum of the prompt (and of the seed, if temperature is above 0). A question with a `*` gets a call of the tool `python`
// if that was offered, and `call NAME {JSON}` one of the tool NAME; a tool's result is repeated as the answer. The question `busy 2 KEY` gets 503 twice before its answer, and
// the answer to one with `break off` breaks off after a few tokens.
import { createServer } from 'node:http';
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

const model = process.env.SCRIPTED_MODEL ?? 'scripted';
const delayMs = Number(process.env.SCRIPTED_DELAY_MS ?? 1);
const maxBodyBytes = 1 << 20;
const busySeen = new Map();
let answered = 0;

const modelObject = { id: model, object: 'model', created: 0, owned_by: 'capstan' };
const words = (text) => text.match(/\S+\s*/g) ?? [];
const checksum = (text) => createHash('sha256').update(text).digest().readUInt32BE(0);

class Refusal extends Error {
  constructor(status, message, param, code) {
    super(message);
    Object.assign(this, { status, param, code });
  }
}

function sendJson(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

function check(body) {
  if (body.model !== model) throw new Refusal(404, `the model '${body.model}' does not exist`, 'model', 'model_not_found');
  const temperature = body.temperature ?? 1;
  if (typeof temperature !== 'number' || temperature < 0 || temperature > 2) {
    throw new Refusal(400, `'temperature' is between 0 and 2, not ${temperature}`, 'temperature', 'invalid_value');
  }
}

function checkBusy(prompt) {
  const [, times] = prompt.match(/^busy (\d+) /) ?? [];
  const seen = busySeen.get(prompt) ?? 0;
  if (seen >= Number(times ?? 0)) return;
  busySeen.set(prompt, seen + 1);
  throw new Refusal(503, `busy for the ${seen + 1}. time`, null, 'model_not_ready');
}

// What is said, as parts {channel, text}, of one token each; call arguments are one part, so that they are never cut.
function compose(body, prompt, chat) {
  const seed = (body.temperature ?? 1) > 0 ? `${body.seed ?? Math.random()}` : '';
  const last = chat?.at(-1);
  const parts = (channel, text) => words(text).map((word) => ({ channel, text: word }));
  if (last?.role === 'tool') return parts('content', `The result is ${last.content.trim()}.`);
  const offered = (name) => body.tools?.some((tool) => tool.function?.name === name);
  const [, name, json] = prompt.match(/^call (\w+) ({.*})$/) ?? [];
  if (offered(name)) return [...parts('reasoning', 'A tool shall do it.'), { channel: 'call', name, text: json }];
  if (offered('python') && prompt.includes('*')) {
    const code = `print(${prompt.match(/[\d*+\- ]+\d/)?.[0].trim() ?? prompt})`;
    return [...parts('reasoning', 'That is long: a tool shall do it.'), { channel: 'call', text: JSON.stringify({ code }) }];
  }
  const answer = parts('content', `The scripted answer to "${prompt}" is ${checksum(prompt + seed)}.`);
  return chat ? [...parts('reasoning', `I was asked ${words(prompt).length} words and look them up.`), ...answer] : answer;
}

// Cuts at max_tokens and before the first stop sequence of the content.
function cut(parts, body) {
  const most = body.max_completion_tokens ?? body.max_tokens ?? Infinity;
  const kept = [];
  let content = '';
  for (const part of parts) {
    if (kept.length >= most) return { kept, finish: 'length' };
    kept.push({ ...part });
    if (part.channel !== 'content') continue;
    const shown = content.length;
    content += part.text;
    const found = [body.stop ?? []].flat().map((stop) => content.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) {
      kept.at(-1).text = content.slice(shown, Math.max(shown, Math.min(...found)));
      return { kept, finish: 'stop' };
    }
  }
  return { kept, finish: kept.at(-1)?.channel === 'call' ? 'tool_calls' : 'stop' };
}

const text = (parts, channel) => parts.filter((part) => part.channel === channel).map((part) => part.text).join('');

function usage(prompt, parts) {
  const prompt_tokens = Math.max(1, words(prompt).length);
  const reasoning_tokens = parts.filter((part) => part.channel === 'reasoning').length;
  return {
    prompt_tokens, completion_tokens: parts.length, total_tokens: prompt_tokens + parts.length,
    completion_tokens_details: { reasoning_tokens },
  };
}

function toolCall(id, part) {
  return { id: `call_${id}`, type: 'function', function: { name: part.name ?? 'python', arguments: part.text } };
}

function wholeChoice(id, kept, finish_reason, chat) {
  if (!chat) return { index: 0, text: text(kept, 'content'), logprobs: null, finish_reason };
  const reasoning = text(kept, 'reasoning');
  const calls = kept.filter((part) => part.channel === 'call').map((part) => toolCall(id, part));
  const message = { role: 'assistant', content: text(kept, 'content') || null, refusal: null, reasoning, reasoning_content: reasoning };
  if (calls.length > 0) message.tool_calls = calls;
  return { index: 0, message, logprobs: null, finish_reason };
}

function deltaOf(id, part) {
  if (part.channel === 'content') return { content: part.text };
  if (part.channel === 'reasoning') return { reasoning: part.text, reasoning_content: part.text };
  return { tool_calls: [{ index: 0, ...toolCall(id, part) }] };
}

async function stream(response, head, body, kept, finish, counts, chat) {
  const breaks = chat && body.messages.at(-1)?.content?.includes?.('break off');
  const withUsage = body.stream_options?.include_usage === true;
  const send = (fields) => response.write(`data: ${JSON.stringify({ ...head, ...(withUsage ? { usage: null } : {}), ...fields })}\n\n`);
  const choice = (said, finish_reason) => ({ choices: [{ index: 0, ...said, logprobs: null, finish_reason }] });
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  if (chat) send(choice({ delta: { role: 'assistant', content: '' } }, null));
  for (const [at, part] of kept.entries()) {
    if (breaks && at === 5) return response.destroy();
    if (response.destroyed) return;
    send(choice(chat ? { delta: deltaOf(head.id, part) } : { text: part.text }, null));
    await sleep(delayMs);
  }
  send(choice(chat ? { delta: {} } : { text: '' }, finish));
  if (withUsage) send({ choices: [], usage: counts });
  response.end('data: [DONE]\n\n');
}

async function complete(response, body, chat) {
  check(body);
  if (chat && !Array.isArray(body.messages)) throw new Refusal(400, `'messages' is not a list`, 'messages', 'invalid_type');
  const said = chat ? body.messages.findLast((message) => message.role === 'user')?.content ?? '' : body.prompt ?? '';
  const prompt = Array.isArray(said) ? said.map((part) => part.text ?? '').join('\n') : String(said);
  checkBusy(prompt);
  const { kept, finish } = cut(compose(body, prompt, chat ? body.messages : null), body);
  const head = {
    id: `${chat ? 'chatcmpl' : 'cmpl'}-${(answered += 1)}`,
    object: chat ? 'chat.completion' : 'text_completion',
    created: Math.floor(Date.now() / 1000),
    model,
  };
  const counts = usage(chat ? JSON.stringify(body.messages) : prompt, kept);
  if (body.stream) {
    const object = chat ? 'chat.completion.chunk' : head.object;
    return stream(response, { ...head, object }, body, kept, finish, counts, chat);
  }
  await sleep(delayMs * kept.length);
  sendJson(response, 200, { ...head, choices: [wholeChoice(head.id, kept, finish, chat)], usage: counts });
}

async function readJson(request) {
  let raw = '';
  for await (const piece of request.setEncoding('utf8')) {
    raw += piece;
    if (raw.length > maxBodyBytes) throw new Refusal(413, 'the body is too large', null, null);
  }
  try {
    return JSON.parse(raw);
  } catch {
    throw new Refusal(400, 'the body is not JSON', null, null);
  }
}

async function answer(request, response) {
  const route = `${request.method} ${request.url.split('?')[0]}`;
  if (route === 'GET /health') return sendJson(response, 200, { status: 'ok' });
  if (route === 'GET /v1/models') return sendJson(response, 200, { object: 'list', data: [modelObject] });
  if (route === `GET /v1/models/${model}`) return sendJson(response, 200, modelObject);
  if (route === 'POST /v1/chat/completions') return complete(response, await readJson(request), true);
  if (route === 'POST /v1/completions') return complete(response, await readJson(request), false);
  throw new Refusal(404, `no such path: ${route}`, null, null);
}

const server = createServer((request, response) => {
  response.setHeader('x-request-id', request.headers['x-request-id'] ?? `scripted-${answered}`);
  answer(request, response).catch((failure) => {
    if (response.headersSent) return response.destroy();
    const { status = 500, message, param = null, code = null } = failure;
    if (status === 503) response.setHeader('retry-after-ms', '20');
    const type = status < 500 ? 'invalid_request_error' : 'server_error';
    sendJson(response, status, { error: { message, type, param, code } });
  });
});
server.listen(Number(process.env.PORT ?? 8081), '127.0.0.1', () => console.log(`scripted engine on port ${server.address().port}`));
process.on('SIGTERM', () => process.exit(0));

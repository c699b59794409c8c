// Makes src/gateway/bedrock/testdata/sigv4_vectors.json: requests signed by two independent signers, the AWS SDK's and aws4fetch.
//
//   node make_sigv4_vectors.mjs >../../src/gateway/bedrock/testdata/sigv4_vectors.json
//
// The key, the secret and the dates are fixed, so the output is the same each time.
import { SignatureV4 } from '@smithy/signature-v4';
import { AwsV4Signer } from 'aws4fetch';
import { createHash, createHmac } from 'node:crypto';

const accessKeyId = 'AKIDEXAMPLE';
const secretAccessKey = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY';
const signingDate = new Date('2026-11-23T10:11:12Z');

// The SDK's signer wants a hash class.
class Sha256 {
  constructor(secret) { this.hash = secret ? createHmac('sha256', secret) : createHash('sha256'); }
  update(data) { this.hash.update(data); }
  async digest() { return new Uint8Array(this.hash.digest()); }
}

const model = 'openai.gpt-oss-20b-1%3A0';
const arn = 'arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Fopenai.gpt-oss-20b-1%3A0';
const body = JSON.stringify({ messages: [{ role: 'user', content: [{ text: 'grüße' }] }] });
const runtime = { 'content-type': 'application/json', 'amz-sdk-invocation-id': '5ad8a4a8-0d3c-4a2b-9f5e-0b9d6a1c2d3e', 'amz-sdk-request': 'attempt=1; max=3' };
const cases = [
  { name: 'converse over HTTP/1.1', method: 'POST', path: `/model/${model}/converse`, headers: { ...runtime, host: '127.0.0.1:8080' }, body },
  { name: 'converse over HTTP/2', method: 'POST', path: `/model/${model}/converse`, headers: { ...runtime, ':authority': '127.0.0.1:8080' }, body },
  { name: 'a model given as ARN', method: 'POST', path: `/model/${arn}/converse-stream`, headers: { ...runtime, host: 'localhost' }, body },
  { name: 'invoke with bytes', method: 'POST', path: `/model/${model}/invoke`, headers: { 'content-type': 'application/octet-stream', accept: 'application/json', host: 'localhost:8080' }, body: '{"messages":[]}' },
  { name: 'a query', method: 'GET', path: '/foundation-models', query: { byProvider: 'OpenAI', byOutputModality: 'TEXT' }, headers: { host: 'localhost' }, body: '' },
  { name: 'a query with what must be escaped', method: 'GET', path: '/foundation-models', query: { byProvider: 'Open AI/ü+~*', a: '', B: '=&' }, headers: { host: 'localhost' }, body: '' },
  { name: 'header values with blanks', method: 'POST', path: `/model/${model}/converse`, headers: { host: 'localhost', 'x-amz-user-agent': '  aws-sdk-js/3   ua/2.1  ' }, body },
  { name: 'a session token', method: 'POST', path: `/model/${model}/converse`, headers: { host: 'localhost' }, body, sessionToken: 'FQoGZXIvYXdzEXAMPLE==' },
  { name: 'another region and a path with odd letters', region: 'eu-central-1', method: 'POST', path: "/model/a'b(c)*!~/converse", headers: { host: 'localhost' }, body },
];

const escape = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
const vectors = [];
for (const { name, region = 'us-east-1', sessionToken, query, ...request } of cases) {
  const signer = new SignatureV4({ service: 'bedrock', region, credentials: { accessKeyId, secretAccessKey, sessionToken }, sha256: Sha256 });
  const signed = await signer.sign({ protocol: 'http:', hostname: 'localhost', query: query ?? {}, ...request }, { signingDate });
  const search = Object.entries(query ?? {}).map(([key, value]) => `${escape(key)}=${escape(value)}`).join('&');
  const headers = Object.entries(signed.headers).map(([key, value]) => [key === ':authority' ? 'host' : key, value]);
  vectors.push({ name, by: 'aws-sdk', method: request.method, target: request.path + (search && `?${search}`), headers, body: request.body });
}
for (const { name, path, query } of [{ name: 'the AI SDK', path: `/model/${model}/converse` }, { name: 'the AI SDK with a query', path: '/foundation-models', query: '?byProvider=OpenAI' }]) {
  const url = `http://localhost:8080${path}${query ?? ''}`;
  const signer = new AwsV4Signer({
    url, method: query ? 'GET' : 'POST', headers: [['content-type', 'application/json']], body: query ? undefined : body,
    accessKeyId, secretAccessKey, service: 'bedrock', region: 'us-east-1', datetime: '20261123T101112Z',
  });
  const signed = await signer.sign();
  const headers = [...signed.headers].filter(([key]) => key !== 'host');
  vectors.push({ name, by: 'aws4fetch', method: query ? 'GET' : 'POST', target: path + (query ?? ''), headers: [...headers, ['host', 'localhost:8080']], body: query ? '' : body });
}
const head = { access_key_id: accessKeyId, secret: secretAccessKey, now: signingDate.getTime() / 1000 };
console.log(JSON.stringify({ ...head, vectors }, null, 1));

// One key floods, another one trickles: what the trickle waits for its first token, alone and beside the flood, and how long the
// replica's batch takes for a step, as the flood's streams see it. Prints one JSON object, in milliseconds.
//   node fairness.mjs BASE_URL FLOOD_KEY TRICKLE_KEY FLOODERS ASKED
const [base, floodKey, trickleKey, flooders, asked] = process.argv.slice(2);
const question = { model: 'abacus', messages: [{ role: 'user', content: 'What is 48217 + 9386?' }], max_tokens: 200, stream: true };

// Times of a stream's events, in ms since the request.
async function stream(key) {
  const begun = performance.now();
  const answer = await fetch(`${base}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify(question),
  });
  if (answer.status !== 200) throw new Error(`${answer.status}: ${await answer.text()}`);
  const times = [];
  for await (const piece of answer.body) if (piece.length > 0) times.push(performance.now() - begun);
  return times;
}

async function trickle() {
  const first = [];
  for (let i = 0; i < Number(asked); ++i) {
    first.push((await stream(trickleKey))[0]);
    await new Promise((done) => setTimeout(done, 100));
  }
  return first;
}

const percentile = (list, share) => {
  const sorted = [...list].sort((a, b) => a - b);
  return Math.round(10 * sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]) / 10;
};

await stream(trickleKey);
const alone = await trickle();
const steps = [];
const floodFirst = [];
let flooding = true;
const flood = Array.from({ length: Number(flooders) }, async () => {
  while (flooding) {
    const times = await stream(floodKey);
    floodFirst.push(times[0]);
    for (let i = 1; i < times.length; ++i) steps.push(times[i] - times[i - 1]);
  }
});
await new Promise((done) => setTimeout(done, 1000)); // all of its places are taken, and some wait
const beside = await trickle();
flooding = false;
await Promise.all(flood);
console.log(JSON.stringify({
  alone_p50: percentile(alone, 0.5), alone_p95: percentile(alone, 0.95),
  beside_p50: percentile(beside, 0.5), beside_p95: percentile(beside, 0.95),
  step_p50: percentile(steps, 0.5), step_p99: percentile(steps, 0.99), step_max: percentile(steps, 1),
  flood_first_p50: percentile(floodFirst, 0.5), flood_requests: floodFirst.length,
}));

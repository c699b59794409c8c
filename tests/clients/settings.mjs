// What all client tests take from the environment:
//   CAPSTAN_URL    the server (http://127.0.0.1:8080)
//   CAPSTAN_MODEL  abacus, or scripted (scripted_engine.mjs behind the gateway, which does as it is told)
//   CAPSTAN_EXPECT what the answer to `question` contains (57603; empty: anything)
export const url = process.env.CAPSTAN_URL ?? 'http://127.0.0.1:8080';
export const model = process.env.CAPSTAN_MODEL ?? 'abacus';
export const expected = process.env.CAPSTAN_EXPECT ?? '57603';
export const question = 'What is 48217 + 9386?';
export const needsScript = model !== 'scripted' && 'needs a replica that does as it is told';
export const key = process.env.CAPSTAN_API_KEY ?? 'unused';

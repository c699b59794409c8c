// E2B's code interpreter (npm `@e2b/code-interpreter`) against Capstan.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Sandbox, TimeoutError } from '@e2b/code-interpreter';

let sandbox;
before(async () => { sandbox = await Sandbox.create(); });
after(() => sandbox.kill());

test('variables stay between cells, the last value is the result', async () => {
  const first = await sandbox.runCode('x = 41\nprint("hello")');
  assert.deepEqual(first.logs.stdout.join(''), 'hello\n');
  assert.equal(first.text, undefined);
  const second = await sandbox.runCode('x + 1');
  assert.equal(second.text, '42');
  assert.ok(second.executionCount > first.executionCount);
});

test('output streams by kind, subprocesses included', async () => {
  const out = [], err = [];
  await sandbox.runCode('import os, sys\nprint("o1")\nprint("e1", file=sys.stderr)\nos.system("echo o2; echo e2 >&2")', {
    onStdout: (message) => { out.push(message.line); }, onStderr: (message) => { err.push(message.line); },
  });
  assert.match(out.join(''), /o1\n[^]*o2\n/);
  assert.match(err.join(''), /e1\n[^]*e2\n/);
});

test('errors have a name, a value and a traceback', async () => {
  const run = await sandbox.runCode('def f():\n  return 1 / 0\nf()');
  assert.equal(run.error.name, 'ZeroDivisionError');
  assert.equal(run.error.value, 'division by zero');
  assert.match(run.error.traceback, /line 2, in f\n\s+return 1 \/ 0/);
  assert.equal((await sandbox.runCode('(')).error.name, 'SyntaxError');
  assert.equal((await sandbox.runCode('"goes on"')).text, 'goes on');
});

test('results have the formats that their objects offer', async () => {
  const run = await sandbox.runCode(`
class Shown:
  def _repr_html_(self): return "<b>bold</b>"
  def _repr_png_(self): return b"\\x89PNG"
  def __repr__(self): return "shown"
display(Shown())
Shown()`);
  assert.equal(run.results.length, 2);
  const [displayed, main] = run.results;
  assert.deepEqual([displayed.isMainResult, main.isMainResult], [false, true]);
  assert.deepEqual([main.text, main.html, main.png], ['shown', '<b>bold</b>', Buffer.from('\x89PNG', 'latin1').toString('base64')]);
});

test('await, shell lines and variables of one cell', async () => {
  assert.equal((await sandbox.runCode('import asyncio\nawait asyncio.sleep(0.01, "slept")')).text, 'slept');
  const run = await sandbox.runCode('!echo $WHO', { envs: { WHO: 'cell' } });
  assert.equal(run.logs.stdout.join(''), 'cell\n');
  assert.equal((await sandbox.runCode('import os; os.environ.get("WHO")')).text, undefined);
});

test('contexts are apart from each other', async () => {
  const context = await sandbox.createCodeContext({ cwd: '/tmp' });
  assert.equal(context.language, 'python');
  await sandbox.runCode('y = 7');
  assert.equal((await sandbox.runCode('y', { context })).error.name, 'NameError');
  assert.equal((await sandbox.runCode('import os; os.getcwd()', { context })).text, '/tmp');
  await sandbox.runCode('z = 1', { context });
  await sandbox.restartCodeContext(context);
  assert.equal((await sandbox.runCode('z', { context })).error.name, 'NameError');
  assert.ok((await sandbox.listCodeContexts()).some((one) => one.id === context.id));
  await sandbox.removeCodeContext(context);
  await assert.rejects(sandbox.runCode('1', { context }), /404|context/);
});

test('a cell that runs too long is interrupted, and the context lives on', async () => {
  await sandbox.runCode('kept = "kept"');
  await assert.rejects(sandbox.runCode('while True: pass', { timeoutMs: 500 }), TimeoutError);
  assert.equal((await sandbox.runCode('kept')).text, 'kept');
});

test('a Python that dies says so, and the next cell begins afresh', async () => {
  const run = await sandbox.runCode('import os; os._exit(3)');
  assert.equal(run.error.name, 'KernelDied');
  assert.equal((await sandbox.runCode('1 + 1')).text, '2');
});

test('files and commands share the sandbox with code', async () => {
  await sandbox.runCode('open("from_code.txt", "w").write("code was here")');
  assert.equal(await sandbox.files.read('from_code.txt'), 'code was here');
  assert.equal((await sandbox.commands.run('cat from_code.txt')).stdout, 'code was here');
});

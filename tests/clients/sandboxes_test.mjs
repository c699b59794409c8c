// E2B's own client (npm `e2b`) against Capstan, with only its URL variables and key set.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CommandExitError, FileNotFoundError, Sandbox, SandboxNotFoundError, TimeoutError } from 'e2b';

const within = (sandbox, use) => Promise.resolve(use(sandbox)).finally(() => sandbox.kill());
const until = async (what, check) => {
  for (let i = 0; i < 200; ++i) {
    if (await check()) return;
    await new Promise((later) => setTimeout(later, 50));
  }
  assert.fail(`waited in vain until ${what}`);
};

test('a command runs and says what it wrote', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    const result = await sandbox.commands.run('echo hi');
    assert.deepEqual([result.exitCode, result.stdout, result.stderr], [0, 'hi\n', '']);
  });
});

test('exit codes, standard error, variables and working directories', async () => {
  await within(await Sandbox.create({ envs: { FROM_SANDBOX: 'one' } }), async (sandbox) => {
    await assert.rejects(sandbox.commands.run('echo out; echo err >&2; exit 3'), (error) => {
      assert.ok(error instanceof CommandExitError);
      assert.deepEqual([error.exitCode, error.stdout, error.stderr], [3, 'out\n', 'err\n']);
      return true;
    });
    await sandbox.files.makeDir('deep/er');
    const where = await sandbox.commands.run('echo $FROM_SANDBOX $FROM_COMMAND; pwd; whoami', {
      envs: { FROM_COMMAND: 'two' }, cwd: '/home/user/deep/er',
    });
    assert.equal(where.stdout, 'one two\n/home/user/deep/er\nuser\n');
    await assert.rejects(sandbox.commands.run('true', { cwd: '/nowhere' }), /nowhere/);
    await assert.rejects(sandbox.commands.run('true', { user: 'root' }), /no user 'root'/);
  });
});

test('output streams while the command runs, and input reaches it', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    let seen = '';
    const command = await sandbox.commands.run('while read line; do echo "got $line"; done', {
      background: true, stdin: true, onStdout: (data) => { seen += data; },
    });
    await sandbox.commands.sendStdin(command.pid, 'first\n');
    await until('the first line came back', () => seen.includes('got first'));
    const listed = await sandbox.commands.list();
    assert.ok(listed.some((one) => one.pid === command.pid));
    await command.sendStdin('second\n');
    await command.closeStdin();
    assert.equal((await command.wait()).stdout, 'got first\ngot second\n');
    assert.equal((await sandbox.commands.list()).length, 0);
  });
});

test('two clients follow one command; large output arrives whole', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    const command = await sandbox.commands.run('read go; seq 1 300000', { background: true, stdin: true });
    const other = await sandbox.commands.connect(command.pid);
    await command.sendStdin('\n');
    const [a, b] = await Promise.all([command.wait(), other.wait()]);
    assert.equal(a.stdout.length, 1988895);
    assert.equal(a.stdout, b.stdout);
  });
});

test('a command is killed, and one past its timeout is', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    const command = await sandbox.commands.run('sleep 100', { background: true });
    assert.equal(await command.kill(), true);
    await assert.rejects(command.wait(), CommandExitError);
    assert.equal(await sandbox.commands.kill(command.pid), false);
    await assert.rejects(sandbox.commands.run('sleep 100', { timeoutMs: 500 }), TimeoutError);
    await until('nothing runs', async () => (await sandbox.commands.list()).length === 0);
  });
});

test('files: write, read, list, look, move, remove', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    const written = await sandbox.files.write('a/b.txt', 'text ä');
    assert.deepEqual([written.name, written.path], ['b.txt', '/home/user/a/b.txt']);
    assert.equal(await sandbox.files.read('/home/user/a/b.txt'), 'text ä');
    const bytes = new Uint8Array([0, 255, 13, 10, 45, 45]);
    await sandbox.files.write([{ path: 'one', data: bytes.buffer }, { path: 'two', data: '' }]);
    assert.deepEqual(await sandbox.files.read('one', { format: 'bytes' }), bytes);
    assert.equal(await sandbox.files.read('two'), '');
    await sandbox.files.write('streamed', new Blob(['x'.repeat(100_000)]).stream());
    assert.equal((await sandbox.files.getInfo('streamed')).size, 100_000);
    const large = new Uint8Array(40 << 20).map((_, i) => i * 7 + (i >> 8));
    await sandbox.files.write('large', large.buffer);
    assert.ok(Buffer.from(await sandbox.files.read('large', { format: 'bytes' })).equals(large));
    await sandbox.files.remove('large');
    assert.equal(await sandbox.files.makeDir('a/c'), true);
    assert.equal(await sandbox.files.makeDir('a/c'), false);
    const names = (await sandbox.files.list('.', { depth: 2 })).map((entry) => `${entry.type} ${entry.path}`);
    assert.deepEqual(names, ['dir /home/user/a', 'file /home/user/a/b.txt', 'dir /home/user/a/c', 'file /home/user/one',
      'file /home/user/streamed', 'file /home/user/two']);
    const moved = await sandbox.files.rename('one', 'a/c/moved');
    assert.equal(moved.path, '/home/user/a/c/moved');
    assert.equal(await sandbox.files.exists('one'), false);
    await sandbox.files.remove('a');
    assert.equal(await sandbox.files.exists('a'), false);
    await assert.rejects(sandbox.files.read('a/b.txt'), FileNotFoundError);
    assert.equal((await sandbox.commands.run('cat two; stat -c %U streamed')).stdout, 'user\n');
    await assert.rejects(sandbox.files.write('/usr/bin/evil', 'x'), /Read-only|denied|cannot/i);
    await sandbox.commands.run('ln -s /etc/passwd link');
    await assert.rejects(sandbox.files.read('link'), /symbolic link/);
  });
});

test('signed URLs carry files in and out', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    const form = new FormData();
    form.append('file', new Blob(['by form']), 'form.txt');
    const up = await fetch(await sandbox.uploadUrl('form.txt'), { method: 'POST', body: form });
    assert.equal(up.status, 200);
    const down = await fetch(await sandbox.downloadUrl('form.txt', { useSignatureExpiration: 60 }));
    assert.equal(await down.text(), 'by form');
    const wrong = await fetch((await sandbox.downloadUrl('form.txt')).replace('form.txt', 'other.txt'));
    assert.equal(wrong.status, 403);
  });
});

test('a directory is watched', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    await sandbox.files.makeDir('watched');
    const seen = [];
    const watch = await sandbox.files.watchDir('watched', (event) => { seen.push(`${event.type} ${event.name}`); },
      { recursive: true });
    await sandbox.commands.run('echo 1 > watched/new; mkdir watched/below');
    await until('the new file was seen', () => seen.includes('create new') && seen.includes('write new'));
    await sandbox.commands.run('echo 2 > watched/below/deep; rm watched/new');
    await until('what is below was seen', () => seen.includes('create below/deep') && seen.includes('remove new'));
    await watch.stop();
  });
});

test('a terminal: size, input, end', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    let screen = '';
    const decoder = new TextDecoder();
    const terminal = await sandbox.pty.create({
      rows: 24, cols: 80, onData: (data) => { screen += decoder.decode(data, { stream: true }); },
    });
    const type = (text) => sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode(text));
    await type('stty size; tty -s && echo is-a-$((1+0))-tty\n');
    await until('the terminal answered', () => screen.includes('24 80') && screen.includes('is-a-1-tty'));
    await sandbox.pty.resize(terminal.pid, { rows: 40, cols: 132 });
    await type('stty size\n');
    await until('the new size showed', () => screen.includes('40 132'));
    await type('exit 0\n');
    assert.equal((await terminal.wait()).exitCode, 0);
  });
});

test('pause keeps what runs where it is, connect goes on', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    await sandbox.commands.run('i=0; while true; do i=$((i+1)); echo $i > count; sleep 0.05; done', { background: true, timeoutMs: 0 });
    await until('it counts', async () => (await sandbox.files.exists('count')) && Number(await sandbox.files.read('count')) > 2);
    assert.equal(await sandbox.pause(), true);
    assert.equal(await sandbox.pause(), false);
    assert.equal(await sandbox.isRunning(), false);
    const paused = await Sandbox.list({ query: { state: ['paused'] } }).nextItems();
    assert.ok(paused.some((one) => one.sandboxId === sandbox.sandboxId));
    const again = await Sandbox.connect(sandbox.sandboxId);
    const before = Number(await again.files.read('count'));
    await until('it counts on', async () => Number(await again.files.read('count')) > before + 2);
  });
});

test('information, lists by metadata and pages', async () => {
  const mark = `mark ${Date.now()} & more`;
  const three = await Promise.all([1, 2, 3].map(() => Sandbox.create({ metadata: { mark } })));
  try {
    const info = await three[0].getInfo();
    assert.equal(info.templateId, 'base');
    assert.equal(info.state, 'running');
    assert.equal(info.metadata.mark, mark);
    const pages = Sandbox.list({ query: { metadata: { mark } }, limit: 2 });
    const first = await pages.nextItems();
    assert.deepEqual([first.length, pages.hasNext], [2, true]);
    const second = await pages.nextItems();
    assert.deepEqual([second.length, pages.hasNext], [1, false]);
    assert.deepEqual(new Set([...first, ...second].map((one) => one.sandboxId)), new Set(three.map((one) => one.sandboxId)));
    const [metrics] = await three[0].getMetrics();
    assert.ok(metrics.memTotal > 0 && metrics.diskTotal > 0);
  } finally {
    await Promise.all(three.map((one) => one.kill()));
  }
});

test('a timeout ends a sandbox, and setTimeout moves it', async () => {
  const sandbox = await Sandbox.create({ timeoutMs: 60_000 });
  assert.equal(await sandbox.isRunning(), true);
  await sandbox.setTimeout(1_000);
  await until('it ended', async () => !(await sandbox.isRunning()));
  await assert.rejects(Sandbox.connect(sandbox.sandboxId), SandboxNotFoundError);
  assert.equal(await sandbox.kill(), false);
});

test('killing ends commands, and a second kill finds nothing', async () => {
  const sandbox = await Sandbox.create();
  const command = await sandbox.commands.run('sleep 100', { background: true });
  assert.equal(await sandbox.kill(), true);
  await assert.rejects(command.wait());
  assert.equal(await sandbox.kill(), false);
});

// The template `net`, which sessions.sh wrote, gives 127.0.0.1:9 and permits *.example.com on request.
test('the network is what the template permits, by its file', { skip: !process.env.WITH_NETWORK_TEMPLATE }, async () => {
  await within(await Sandbox.create('net'), async (sandbox) => {
    assert.equal((await sandbox.getInfo()).allowInternetAccess, true);
    assert.match((await sandbox.commands.run('echo $HTTPS_PROXY')).stdout, /^http:/);
    const refused = await sandbox.commands.run('curl -s http://elsewhere.example.net/');
    assert.match(refused.stdout, /elsewhere.example.net:80 is not among the hosts/);
    await sandbox.updateNetwork({ allowOut: ['api.example.com'], denyOut: ['0.0.0.0/0'] });
    assert.deepEqual((await sandbox.getInfo()).network.allowOut, ['api.example.com']);
    await assert.rejects(sandbox.updateNetwork({ allowOut: ['example.org'] }), /not allowed here; allowed is/);
  });
  await within(await Sandbox.create('net', { allowInternetAccess: false }), async (sandbox) => {
    assert.equal((await sandbox.getInfo()).allowInternetAccess, false);
  });
  await assert.rejects(Sandbox.create('net', { network: { allowOut: ['*'], denyOut: ['10.0.0.0/8'] } }), /denyOut/);
  await assert.rejects(Sandbox.create('net', { network: { allowOut: ['example.org'] } }), /not allowed here/);
});

test('what a sandbox cannot do is refused', async () => {
  await assert.rejects(Sandbox.create('no-such-template'), /no template/);
  await assert.rejects(Sandbox.create({ allowInternetAccess: true }), /no network/);
  await assert.rejects(Sandbox.create({ timeoutMs: 48 * 3600 * 1000 }), /timeout/);
});

test('another sandbox\'s token opens nothing', async () => {
  await within(await Sandbox.create(), async (mine) => {
    await within(await Sandbox.create(), async (other) => {
      const answer = await fetch(`${process.env.E2B_SANDBOX_URL}/files?path=x`, {
        headers: { 'E2b-Sandbox-Id': mine.sandboxId, 'X-Access-Token': other.envdAccessToken ?? '' },
      });
      assert.equal(answer.status, 403);
    });
  });
});

test('a fork has the files, a snapshot begins others', async () => {
  await within(await Sandbox.create(), async (sandbox) => {
    await sandbox.files.write('state.txt', 'kept');
    await sandbox.commands.run('printf "#!/bin/sh\\necho ran\\n" > tool && chmod +x tool');
    const [fork] = await sandbox.fork();
    await within(fork, async () => {
      assert.equal(await fork.files.read('state.txt'), 'kept');
      assert.equal((await fork.commands.run('./tool')).stdout, 'ran\n');
      await fork.files.write('state.txt', 'changed');
      assert.equal(await sandbox.files.read('state.txt'), 'kept');
    });
    const snapshot = await sandbox.createSnapshot();
    await within(await Sandbox.create(snapshot.snapshotId), async (copy) => {
      assert.equal(await copy.files.read('state.txt'), 'kept');
    });
    const listed = await sandbox.listSnapshots().nextItems();
    assert.ok(listed.some((one) => one.snapshotId === snapshot.snapshotId));
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true);
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false);
  });
});

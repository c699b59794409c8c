#!/usr/bin/env python3
"""Question: does an array of a million tiny tasks in sandboxes complete on one machine, how fast, with how much memory?

    tools/bench_tasks.py BIN --tasks 1000000 --lane python --batch 1000 [--kill]

Starts a Capstan of its own in a temporary directory, as root, and prints one JSON object. With --kill, the controller is killed
(SIGKILL) when half of the tasks have ended, and started again. The answer's fingerprint is `results`: how many tasks have a
right result, `missing` and `repeated` of them.
"""
import argparse, json, os, shutil, signal, socket, subprocess, sys, tempfile, time

CODE = "import os\nprint(int(os.environ['CAPSTAN_TASK_INDEX']) ** 2)\n"

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

class House:
    def __init__(self, bin_dir):
        self.capstan = os.path.join(bin_dir, 'capstan')
        self.scratch = tempfile.mkdtemp(prefix='capstan-bench-tasks-')
        os.chmod(self.scratch, 0o711)
        self.data = os.path.join(self.scratch, 'data')
        self.env = dict(os.environ, CAPSTAN_DATA_DIR=self.data)
        self.port = free_port()
        self.peaks = {'controller': 0, 'worker': 0, 'launcher': 0}

    def up(self):
        log = open(os.path.join(self.scratch, 'up.log'), 'ab')
        self.process = subprocess.Popen([self.capstan, 'up', '--bare', '--port', str(self.port)], env=self.env, stdout=log, stderr=log)
        for _ in range(600):
            if subprocess.run([self.capstan, 'status'], env=self.env, capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        sys.exit('capstan did not come up; see ' + self.scratch)

    def call(self, *words):
        return subprocess.run([self.capstan, *words], env=self.env, capture_output=True, text=True)

    def pid(self, file):
        try:
            with open(os.path.join(self.data, file)) as f:
                return json.load(f)['pid']
        except (OSError, ValueError, KeyError):
            return 0

    def note_memory(self):
        for name, file in (('controller', 'controller.json'), ('worker', 'worker/worker.json')):
            try:
                with open(f'/proc/{self.pid(file)}/status') as f:
                    peak = next(int(line.split()[1]) for line in f if line.startswith('VmHWM'))
                self.peaks[name] = max(self.peaks[name], peak)
            except (OSError, StopIteration):
                pass

    def ended(self):
        answer = self.call('-o', 'json', 'get', 'million')
        return json.loads(answer.stdout) if answer.returncode == 0 else None

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('bin')
    parser.add_argument('--tasks', type=int, default=1_000_000)
    parser.add_argument('--batch', type=int, default=1000)
    parser.add_argument('--lane', choices=('python', 'process'), default='python')
    parser.add_argument('--kill', action='store_true')
    options = parser.parse_args()
    house = House(options.bin)
    try:
        run(house, options)
    finally:
        house.call('down')
        house.process.wait(60)
        shutil.rmtree(house.scratch, ignore_errors=True)

def run(house, options):
    house.up()
    spec = {'kind': 'tasks', 'name': 'million', 'count': options.tasks, 'timeout': '60s',
            'sandbox': {'lane': options.lane, 'batch': options.batch}}
    if options.lane == 'python':
        spec['sandbox']['code'] = CODE
    else:
        spec['command'] = ['/bin/echo', '{index}']
    file = os.path.join(house.scratch, 'million.yaml')
    with open(file, 'w') as f:
        json.dump(spec, f)
    begun = time.monotonic()
    applied = house.call('apply', '-f', file)
    if applied.returncode != 0:
        sys.exit(applied.stderr)
    state, killed = {}, not options.kill
    while state.get('state') not in ('succeeded', 'failed', 'cancelled'):
        time.sleep(0.5)
        house.note_memory()
        state = house.ended() or state
        if not killed and state.get('ready', 0) >= options.tasks // 2:
            os.kill(house.pid('controller.json'), signal.SIGKILL)
            house.process.wait()
            house.up()
            killed = True
    seconds = time.monotonic() - begun
    right, repeated, seen = 0, 0, bytearray(options.tasks)
    results = subprocess.Popen([house.capstan, 'results', 'million'], env=house.env, stdout=subprocess.PIPE)
    for line in results.stdout:
        result = json.loads(line)
        index = result['index']
        repeated += seen[index]
        seen[index] = 1
        wanted = index ** 2 if options.lane == 'python' else index
        right += result['ok'] and result['out'] == f'{wanted}\n'

    print(json.dumps({
        'tasks': options.tasks, 'lane': options.lane, 'batch': options.batch, 'cpus': os.cpu_count(), 'state': state['state'],
        'seconds': round(seconds, 1), 'tasks_per_s': round(options.tasks / seconds),
        'results': right, 'missing': seen.count(0), 'repeated': repeated, 'controller_killed': options.kill,
        'controller_peak_kib': house.peaks['controller'], 'worker_peak_kib': house.peaks['worker'],
        'journal_bytes': os.path.getsize(os.path.join(house.data, 'journal.sqlite')),
        'task_cpu_s': round(state['tasks']['usage']['cpu_us'] / 1e6, 1)}))

main()

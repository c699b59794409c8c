#!/usr/bin/env python3
"""How fast is the engine, as shares of what this machine can do, and beside llama.cpp?

usage: bench_engine.py ENGINE MODEL [--rounds 3] [--threads 2]
Runs `ENGINE bench --model MODEL` --rounds times; where LLAMA_CPP names a build of llama.cpp (the folder with llama-bench
and llama-batched-bench) and LLAMA_MODEL its file of the same shape, those by turns with it. Prints one JSON object:
medians of both, their ratios, and shares of the memory's read rate that the engine measured in the same run.
Dropping the page cache before each start (DROP_CACHES=1, as root) makes times to the first token those of a cold start.
"""
import argparse, json, os, re, statistics, subprocess, sys, time

BATCHES = (8, 32)
PROMPT, GENERATED = 8, 4  # of each sequence of a batch


def run(command):
    print("+", " ".join(command), file=sys.stderr)
    begin = time.monotonic()
    done = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    out = done.stdout.read()
    _, status, usage = os.wait4(done.pid, 0)
    if status != 0:
        sys.exit(f"bench_engine.py: {command[0]} failed with status {os.waitstatus_to_exitcode(status)}")
    return out, time.monotonic() - begin, usage.ru_maxrss * 1024


def drop_caches():
    if os.environ.get("DROP_CACHES") == "1":
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")


def ours(options, arithmetic):
    drop_caches()
    out, _, _ = run([options.engine, "bench", "--model", options.model, "--arithmetic", arithmetic, "--json",
                     "--threads", str(options.threads), "--pp", "512", "--tg", "32", "--repetitions", "1",
                     "--batch", ",".join(map(str, BATCHES)), "--batch-prompt", str(PROMPT),
                     "--batch-generate", str(GENERATED)])
    result = json.loads(out.strip().splitlines()[-1])
    figures = {test["test"]: test["avg_ts"] for test in result["tests"]}
    names = {"pp512": "prefill_512", "tg32": "decode_1"}
    figures = {names.get(name, "decode_" + name.split("x")[-1]): value for name, value in figures.items()}
    figures["first_token_s"] = result["first_token_s"]
    figures["peak_rss_bytes"] = result["peak_rss_bytes"]
    figures["peak_rss_share_of_weights"] = result["peak_rss_bytes"] / result["weight_bytes"]
    figures["decode_share_of_read_rate"] = result["decode_share_of_read_rate"]
    figures["read_bytes_per_s"] = result["read_bytes_per_s"]
    return figures


def theirs(options, folder, model):
    bench = [os.path.join(folder, "llama-bench"), "-m", model, "-t", str(options.threads), "-r", "1", "--no-warmup",
             "-o", "json"]
    out, _, _ = run(bench + ["-lm", "none", "-p", "512", "-n", "32"])
    figures = {}
    for test in json.loads(out):
        figures["prefill_512" if test["n_prompt"] else "decode_1"] = test["avg_ts"]
    drop_caches()
    _, seconds, _ = run(bench + ["-lm", "none", "-p", "0", "-n", "1"])
    figures["first_token_s"] = seconds
    _, _, figures["peak_rss_bytes"] = run(bench + ["-p", "0", "-n", "1"])
    batched = os.path.join(folder, "llama-batched-bench")
    tokens = max(BATCHES) * (PROMPT + GENERATED)
    out, _, _ = run([batched, "-m", model, "-t", str(options.threads), "-lm", "none", "-c", str(max(tokens, 512)),
                     "-npp", str(PROMPT), "-ntg", str(GENERATED), "-npl", ",".join(map(str, BATCHES))])
    for row in re.findall(r"^\|(.*)\|$", out, re.M):
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) >= 8 and cells[0].isdigit():
            figures["decode_" + cells[2]] = float(cells[7])
    return figures


def medians(rounds):
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder, model = os.environ.get("LLAMA_CPP"), os.environ.get("LLAMA_MODEL")
    if bool(folder) != bool(model):
        sys.exit("bench_engine.py: LLAMA_CPP (a folder with llama-bench) and LLAMA_MODEL (a .gguf) go together")
    runs = {"default": [], "int8": [], "llama.cpp": []}
    for _ in range(options.rounds):
        runs["default"].append(ours(options, "default"))
        runs["int8"].append(ours(options, "int8"))
        if folder:
            runs["llama.cpp"].append(theirs(options, folder, model))
    result = {name: medians(rounds) for name, rounds in runs.items() if rounds}
    if folder:
        for name in ("default", "int8"):
            result["ratios_" + name] = {key: result[name][key] / value for key, value in result["llama.cpp"].items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

# For developers. Each target is one command; the launcher ./capstan installs packages and builds.
BUILD ?= build
# Clones in other folders share the compiler cache, as in ./capstan.
export CCACHE_BASEDIR ?= $(CURDIR)
export CCACHE_NOHASHDIR ?= 1

.PHONY: build test test-slow lint ci eval-abacus bench-engine bench-gateway bench-openb bench-sandbox bench-schedule bench-tasks bench-sim sim \
  fuzz leaks clean

build:            ## compile everything
	@cmake -S . -B $(BUILD) -G Ninja >/dev/null && ninja -C $(BUILD)

test:             ## all tests but the slow ones
	@CAPSTAN_BUILD_DIR=$(abspath $(BUILD)) ./capstan test

test-slow: build  ## the slow ones too: 200 rounds of the crash test
	@cd $(BUILD) && ctest --output-on-failure

leaks: build       ## 10,000 runs of sandboxes with random kills, and nothing left, as root: RUNS=10000 SEEDS="1 2"
	@for seed in $(or $(SEEDS),1 2); do RUNS=$(or $(RUNS),10000) SEED=$$seed $(BUILD)/bin/sandbox_leaks_test || exit 1; done

lint: build       ## arrows between folders, bans in the core, sizes, headers that compile alone
	@ninja -C $(BUILD) check_headers
	@tools/lint.sh

ci:               ## what CI runs
	@.ci/run

eval-abacus: build ## exact-match accuracy of the default model on 5,000 or more unseen problems, per kind
	@$(BUILD)/bin/capstan-eval-abacus --model models/abacus --problems $(or $(PROBLEMS),6000)

bench-openb: build ## GPUs that placement allocates on the OpenB trace: NODES=file PODS=file SEEDS=42-51
	@$(BUILD)/bin/capstan-bench-openb $(if $(NODES),--nodes "$(NODES)") $(if $(PODS),--pods "$(PODS)") \
	  --seeds "$(or $(SEEDS),42-51)"

bench-engine: build ## the engine beside llama.cpp: MODEL=dir ROUNDS=3; LLAMA_CPP=folder with llama-bench, LLAMA_MODEL=its .gguf
	@tools/bench_engine.py $(BUILD)/bin/capstan-engine "$(or $(MODEL),models/abacus)" --rounds $(or $(ROUNDS),3)

bench-schedule: build ## what the scheduler does on half a million GPUs: SCALE=0.01 ONLY=gangs,queue
	@$(BUILD)/bin/capstan-bench-schedule $(if $(SCALE),--scale $(SCALE)) $(if $(ONLY),--only $(ONLY))

bench-gateway: build ## what a request through the gateway costs, with key, limits and metering, against nginx: one JSON object: REQUESTS=20000 STREAMS=1000 ONLY=streams
	@$(BUILD)/bin/capstan-bench-gateway $(if $(REQUESTS),--requests $(REQUESTS)) $(if $(STREAMS),--streams $(STREAMS)) \
	  $(if $(ONLY),--only $(ONLY))

bench-sim: build  ## what the simulator does, and how near it comes to what was published: ONLY=muri-64 SEEDS=20 PHILLY=file SCALE=0.01
	@$(BUILD)/bin/capstan-bench-sim $(if $(SCALE),--scale $(SCALE)) $(if $(ONLY),--only $(ONLY)) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(PHILLY),--philly "$(PHILLY)") $(if $(TRACES),--traces "$(TRACES)")

bench-sandbox: build ## how fast sandboxes start beside bubblewrap and beside bombs, as root on a quiet machine: SECONDS=60 NEIGHBOURS=3 ONLY=python,idle
	@$(BUILD)/bin/capstan-bench-sandbox --seconds $(or $(SECONDS),60) --neighbours $(or $(NEIGHBOURS),3) \
	  $(if $(ONLY),--only $(ONLY))

bench-tasks: build ## a million tiny tasks in sandboxes, the controller killed half-way: TASKS=1000000 LANE=python BATCH=1000, as root
	@tools/bench_tasks.py $(BUILD)/bin --tasks $(or $(TASKS),1000000) --lane $(or $(LANE),python) --batch $(or $(BATCH),1000) --kill

sim: build        ## random histories of faults against the controller: SEEDS=1000 FROM=1, or SEED=17 alone
	@$(BUILD)/bin/capstan-sim-campaign $(if $(SEED),--seed $(SEED) --trace,--seeds $(or $(SEEDS),1000) --from $(or $(FROM),1))

fuzz:             ## every fuzzer under libFuzzer (clang 19): SECONDS=60 each, NAMES="grammar_fuzz harmony_fuzz"
	@tools/fuzz.sh $(BUILD)-fuzz $(or $(SECONDS),60) $(NAMES)

clean:
	@rm -rf $(BUILD)

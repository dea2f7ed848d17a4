# Thin fronts of the fab tasks. INVENTORY=FILE chooses another inventory than inventory.yaml.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
# Where torch comes from, tried in turn: PyTorch's index of CPU builds and a mirror of it, then the default index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu https://mirrors.nju.edu.cn/pytorch/whl/cpu
ARGS ?=

export INVENTORY SCRATCH
VENV := .venv
BIN := $(VENV)/bin
# A worker of pytest for each core, up to four: one that has nothing left to do takes half of what another has.
WORKERS := --numprocesses auto --maxprocesses 4 --dist worksteal
FAB := PATH="$$PWD/$(BIN):$$PATH" $(BIN)/fab

.PHONY: help demo init run gpu-image npu-image cann-image sbom gpu-stage gpu-bench npu-convert npu-bench npu-profile npu-precision npu-tune score report audit
.PHONY: status docs pictures doctor ray bench check test test-full test-fleet test-system fuzz kill-test soak lint lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: export INVENTORY = $(if $(MODEL),work/demo-$(notdir $(MODEL))/inventory.yaml,inventory.demo$(if $(RUNTIME),-$(RUNTIME)).yaml)
demo: $(VENV)/kit work/sample/st_gcn.sample.pth ## the whole job on this machine: sample data, simulated NPU, verdict; RUNTIME=docker: in the images; MODEL=NAME
	@$(if $(MODEL),$(BIN)/python -m deploy.demo "$(MODEL)")
	@$(FAB) gpu-stage npu-convert npu-bench score

gpu-image: $(VENV)/kit ## build stgcn-gpu (settings: docs/images.md)
	@$(FAB) gpu-image

npu-image: $(VENV)/kit ## build stgcn-npu, or with TARGET=simulator stgcn-npu:simulator
	@$(FAB) npu-image

cann-image: $(VENV)/kit ## build stgcn-cann, a base for npu-image, of the CANN .run files in CANN_RUN
	@$(FAB) cann-image

sbom: $(VENV)/kit ## list each image's packages (CycloneDX) in work/sbom/
	@$(FAB) sbom $(ARGS)

init: $(VENV)/kit ## look at an NPU host and write the inventory
	@$(FAB) init $(ARGS)

run: $(VENV)/kit ## the whole job on the inventory's hosts: preflight, gpu-stage, npu-convert, npu-bench, score
	@$(FAB) run $(ARGS)

gpu-stage: $(VENV)/kit ## on the GPU host: index the data, export the ONNX, fp32 reference logits
	@$(FAB) gpu-stage $(ARGS)

gpu-bench: $(VENV)/kit ## on the GPU host: the fp32 model's throughput, for the NPU's to be compared with
	@$(FAB) gpu-bench $(ARGS)

npu-convert: $(VENV)/kit ## on the NPU hosts: one OM per batch size
	@$(FAB) npu-convert $(ARGS)

npu-bench: $(VENV)/kit ## on the NPU hosts: accuracy and throughput of each OM
	@$(FAB) npu-bench $(ARGS)

npu-profile: $(VENV)/kit ## on an NPU host: which blocks and nodes of the ONNX the device's time goes to
	@$(FAB) npu-profile $(ARGS)

npu-precision: $(VENV)/kit ## on the NPU hosts: which nodes must stay in float32 for the gate to hold, and what that costs
	@$(FAB) npu-precision $(ARGS)

npu-tune: $(VENV)/kit ## on the NPU hosts: which variant, precision mode and batch size is fastest
	@$(FAB) npu-tune $(ARGS)

score: $(VENV)/kit ## the verdict: table, report/summary.json, summary.csv and report.html
	@$(FAB) score $(ARGS)

report: $(VENV)/kit ## the page of the verdict again: report/report.html
	@$(FAB) report $(ARGS)

audit: $(VENV)/kit ## recompute the verdict from its artefacts, name the first that does not hold
	@$(FAB) audit $(ARGS)

status: $(VENV)/kit ## what is done, what is stale and why, what to run next
	@$(FAB) status $(ARGS)

doctor: $(VENV)/kit ## is every host fit and every file there, and if not, what fixes it
	@$(FAB) doctor $(ARGS)

bench: $(VENV)/kit $(VENV)/ray ## measure the kit against the guide's way (as root also over a link); SCRATCH=FOLDER: where
	@$(BIN)/python -m benchmarks $(ARGS)

ray: $(VENV)/ray ## install Ray, for `engine: {kind: ray}` (docs/fleet.md)

check: $(VENV)/dev ## lint, types, unit tests: under a minute
	@$(MAKE) lint
	@$(BIN)/python -m pytest tests/unit -m "not full" $(WORKERS) $(ARGS)

test: $(VENV)/dev ## lint, then one case of everything: under five minutes on two cores
	@$(MAKE) lint
	@$(BIN)/python -m pytest tests -m "not full" $(WORKERS) $(ARGS)

test-full: $(VENV)/dev $(VENV)/ray ## as root, all that `make test` leaves out: matrices, kills, soak, browser, test-fleet, test-system
	@$(BIN)/python -m pytest tests -m full --numprocesses 2 --dist loadfile $(ARGS)

test-fleet: $(VENV)/dev $(VENV)/ray ## a Ray cluster on this machine, its nodes simulated NPU hosts
	@$(BIN)/python -m pytest tests/fleet $(ARGS)

fuzz: $(VENV)/fuzz ## attack everything that reads what others wrote, for some minutes; how many cases each reader met
	@$(BIN)/python -m pytest tests/fuzz --fuzz-examples 500 $(ARGS)
	@! $(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m tests.fuzz.guided 10

test-system: $(VENV)/dev ## as root: real sshd in namespaces, real containers; installs what they need (apt)
	@$(BIN)/python -m pytest tests/system $(ARGS)

kill-test: $(VENV)/dev ## kill the kit, fill its disk, lock its folders at hundreds of its writes and renames; ARGS="--cuts N --seed N"
	@$(BIN)/python -m tests.robust.interrupted $(ARGS)

soak: $(VENV)/dev ## 19796 sample clips end to end (simulated, inference shortened): memory, open files, what is left aside
	@$(BIN)/python -m tests.robust.soak $(ARGS)

docs: $(VENV)/docs ## the documents as a site: work/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

pictures: $(VENV)/dev ## make the README's pictures again, of the demo's terminal and page
	@$(BIN)/python -m docs.pictures.make

lint: $(VENV)/dev ## ruff, mypy, shellcheck, hadolint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@git ls-files -z '*.sh' .ci/run docker/npu/simulator/bin docker/build docker/gpu/build docker/npu/entry docker/npu/usable | xargs -0 $(BIN)/shellcheck
	@git ls-files -z '*Dockerfile' | xargs -0 $(BIN)/hadolint

lock: $(VENV)/dev ## write the locks again from requirements/*.in
	@requirements/lock.sh
	@docker/gpu/lock.sh $(abspath $(BIN)/uv)
	@docker/npu/lock.sh $(abspath $(BIN)/uv)

clean: ## remove the workspace of the demo and every cache; inventories' workspaces stay
	@rm -rf work/demo work/demo-* work/sample work/interrupted work/soak .mypy_cache .pytest_cache .ruff_cache .hypothesis

work/sample/st_gcn.sample.pth: | $(VENV)/kit
	@$(BIN)/python -m stgcn.sample --output_dir $(@D) --samples 18

# The stamps are files in the environment itself: removing .venv removes them too. One that was moved with its clone, or
# that lost its Python, is made anew.
ifneq ($(shell requirements/whole.sh $(VENV) && echo whole),whole)
.PHONY: $(VENV)/kit
endif
$(VENV)/kit: requirements/kit.lock requirements/torch.txt
	@requirements/venv.sh "$(PYTHON)" "$(VENV)" "$(TORCH_INDEX)" requirements/kit.lock requirements/torch.txt
	@touch $@

$(VENV)/ray: $(VENV)/kit requirements/ray.lock
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/ray.lock
	@touch $@

$(VENV)/dev: $(VENV)/kit requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.lock
	@touch $@

$(VENV)/docs: $(VENV)/dev requirements/docs.lock
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/docs.lock
	@touch $@

$(VENV)/fuzz: $(VENV)/dev requirements/fuzz.lock
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/fuzz.lock
	@touch $@

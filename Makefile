# Every target is one step; `make` alone prints this menu.
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# The experiment reads its own working tree, also where Tuneline is installed from another one.
export PYTHONPATH := src
PYTHON ?= python3
LLAMA_CPP_PYTHON := 0.3.36
# The multimodal part of llama.cpp is not used here and doubles its build.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

.PHONY: help
help: ## This menu
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.ready ## Create .venv with pinned dependencies and llama.cpp (first time: 7 to 17 minutes)

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --upgrade pip
	@echo "installing torch, transformers and the rest (1 to 3 minutes), then compiling llama.cpp (4 to 9 minutes)"
	python -m pip install --progress-bar on --constraint constraints.txt --editable '.[dev]'
	tuneline converter --version $(LLAMA_CPP_PYTHON)
	@echo "compiling llama.cpp's server and imatrix (2 to 5 minutes)"
	tuneline tools --version $(LLAMA_CPP_PYTHON)
	touch $@

.PHONY: repro
repro: setup ## The whole experiment, from raw data to a deployable GGUF; repeats only what changed
	tuneline outputs --frozen
	dvc repro
	tuneline outputs
	tuneline summary

.PHONY: fsck
fsck: setup ## Read every byte with a recorded hash again: cache, outputs, models, checkpoints
	tuneline fsck

.PHONY: params
params: setup ## Compose params.yaml from conf/ (after any edit there)
	tuneline params

.PHONY: check
check: setup ## Lint, types and the fast tests (seconds)
	ruff check
	ruff format --check
	mypy
	pytest -n auto --dist loadfile -m 'not slow and not gpu and not faults'

.PHONY: test
test: check ## Everything that check does, then the slow tests: training, llama.cpp, a real `dvc repro` (minutes)
	pytest -m 'slow and not gpu and not faults'

.PHONY: faults
faults: setup ## Kill, fill, damage: what stages and training must survive (a quarter of an hour; TUNELINE_SEED repeats a run)
	pytest -n 2 --dist loadgroup -m 'faults or (slow and upkeep)' tests/faults tests/upkeep

.PHONY: raw
raw: setup ## Write data/raw/text_to_sql again (the same bytes)
	python -m tuneline.embedded.raw --out data/raw/text_to_sql

.PHONY: base
base: setup ## Rebuild the embedded base model (about an hour on two cores)
	cd models/base && dvc unfreeze anneal && { dvc repro; status=$$?; dvc freeze anneal; exit $$status; }
	tuneline pin sqlama
	tuneline params

.PHONY: wiring
wiring: setup ## Write the code dependencies of each stage into dvc.yaml
	tuneline wiring --write

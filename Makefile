# Two commands matter: `make demo` and `make test`. Both set up everything they need in .venv.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO ?=
TESTS ?=
CASES ?= 100000
ECOSYSTEM ?= .venv-ecosystem
GROUPS := networks forecasting science anomaly

.PHONY: demo test test-ecosystem package test-distributed lint types unit laws injections bench docs links clean check-python
.DEFAULT_GOAL := help

help:
	@echo "make demo   train a small GPT on Shakespeare with our callbacks (about 3 minutes on two CPU cores)"
	@echo "make test   lint, types, tests, doctests, two-process tests"
	@echo "make test-ecosystem  models of thirteen other packages, each in the environment that it needs (10 minutes)"
	@echo "make package  wheel and sdist, looked into and installed into empty environments with each extra (15 minutes)"
	@echo "make test-distributed  every strategy preset on 2 and 4 processes against one, its checkpoints, its bytes against the plan (about 25 minutes)"
	@echo "make laws   100,000 random schedules against the laws of all schedules (about 2 minutes)"
	@echo "make injections  10,000 NaN and Inf in gradients and losses against the runs without them (about 8 minutes)"
	@echo "make bench  ratios against peers, one table"
	@echo "make docs   build the documentation, warnings are errors"
	@echo "make links  open every address that the docs link to"
	@echo "make clean  remove the environment and the runs"

# Threads that wait in a loop for a core that somebody else has make training ten times slower on a busy machine.
demo: $(VENV)/.demo
	@GOMP_SPINCOUNT=1000 $(BIN)/python examples/train_gpt.py $(DEMO)

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest $(TESTS)

# In environments of their own, because their pins clash, and so that nothing they bring can hide in ours. The table is
# written whatever comes out.
test-ecosystem:
	@failed=; for group in $(GROUPS); do \
		$(MAKE) --no-print-directory ecosystem-$$group || failed="$$failed $$group"; done; \
	$(ECOSYSTEM)/networks/bin/python tests/ecosystem/table.py docs/ecosystem.md $(GROUPS:%=$(ECOSYSTEM)/%/results.json); \
	if test -n "$$failed"; then echo "failed:$$failed" >&2; exit 1; fi

ecosystem-%: $(ECOSYSTEM)/%/.ready
	rm -f $(<D)/results.json
	ECOSYSTEM=$* RESULTS=$(<D)/results.json $(<D)/bin/python -m pytest -q tests/ecosystem

# Builds, looks into what was built, and installs it where nothing else is.
package: $(VENV)/.dev
	$(BIN)/python -m pytest -m packaging tests/packaging $(TESTS)

test-distributed: $(VENV)/.dev
	$(BIN)/python -m pytest -m distributed tests/strategies tests/planning $(TESTS)

laws: $(VENV)/.dev
	LAWS_CASES=$(CASES) $(BIN)/python -m pytest -q -s tests/schedules/test_laws.py

injections: $(VENV)/.dev
	INJECTIONS=10000 CLEAN=100000 $(BIN)/python -m pytest -q -s -k "injections or spikes_of_8" tests/callbacks/test_skip_bad_steps.py

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(BENCH) $(if $(BENCH),,--check --md docs/benchmarks.md)

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

links: $(VENV)/.dev
	$(BIN)/python tests/links.py

clean:
	rm -rf $(VENV) $(ECOSYSTEM) runs docs/_build

check-python:
	@command -v $(PYTHON) >/dev/null || { echo "lightning-llmopt needs Python 3.10 or newer, but there is no $(PYTHON): install one, or name it as in PYTHON=/usr/bin/python3.12." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "lightning-llmopt needs Python 3.10 or newer, but $(PYTHON) is %d.%d: install a newer one, or name it as in PYTHON=/usr/bin/python3.12." % sys.version_info[:2])'

# torch comes first and alone: with it in place no other package can pull a different build.
$(VENV)/.torch: constraints.txt | check-python
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) install -q -c constraints.txt -e ".[examples]"
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install -q -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) install -q -c constraints.txt -e ".[docs]"
	@touch $@

.PRECIOUS: $(ECOSYSTEM)/%/.ready
$(ECOSYSTEM)/%/.ready: tests/ecosystem/requirements/%.txt constraints.txt pyproject.toml | check-python
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install -q $(TORCH)
	sed -nE '/^(torch|lightning|pytorch-lightning|torchmetrics|pytest)==/p' constraints.txt > $(@D)/held.txt
	$(@D)/bin/python -m pip --disable-pip-version-check install -q -c $(@D)/held.txt -e . pytest -r $<
	if test $* = networks; then $(@D)/bin/python -m pip --disable-pip-version-check install -q --no-deps litgpt==0.5.13; fi
	@touch $@

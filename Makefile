# Needs make, and Python 3.10 or newer with its venv module. Everything else is installed into
# $(VENV) on first use, and again when the requirements change.

PYTHON ?= python3
VENV ?= .venv
# Test processes.
JOBS ?= 2
DEMO_DIR ?= saved_model_demo

PY := $(VENV)/bin/python
KEY := $(shell cat requirements.txt requirements-dev.txt pyproject.toml | cksum | cut -d' ' -f1)
INSTALLED := $(VENV)/.installed-$(KEY)
INSTALLED_DEV := $(VENV)/.installed-dev-$(KEY)

# Tests never use the network. The cores are shared between processes, not threads.
TEST_ENV := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo install test check lint types format map configuration data sample bench bench-data soak clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##/  make \1|/p' Makefile | awk -F'|' '{printf "%-16s%s\n", $$1, $$2}'

demo: $(INSTALLED)  ## install, train on the demonstration data, evaluate, predict new sentences
	$(PY) src/train.py src/config.yaml --save_dir $(DEMO_DIR) --overwrite
	$(PY) src/evaluate.py $(DEMO_DIR)/best
	$(PY) src/predict.py $(DEMO_DIR)/best "John lives in Paris" "Where does Mary Jane Watson work?" \
	  "I wonder whether Ravi ever went back to Nova Scotia." "is it far from Marseille to Lyon"
	@echo
	@echo 'The model is in $(DEMO_DIR)/best. Ask it something:'
	@echo '  $(VENV)/bin/manyheads predict $(DEMO_DIR)/best "your own sentence"'

install: $(INSTALLED)  ## install without the development tools

test: $(INSTALLED_DEV)  ## run the tests; ARGS="-k crf" runs some of them
	$(TEST_ENV) $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: lint types docs test  ## lint, types, documentation and tests; must pass before a change lands

lint: $(INSTALLED_DEV)  ## check the style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(INSTALLED_DEV)  ## check the types
	$(PY) -m mypy

.PHONY: docs
docs: $(INSTALLED_DEV)  ## build the documentation site in site/; warnings are errors
	NO_MKDOCS_2_WARNING=true $(PY) -m mkdocs build --strict --quiet

format: $(INSTALLED_DEV)  ## format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

map:  ## regenerate the map of the code in README and CONTRIBUTING
	$(PYTHON) scripts/house.py

configuration: $(INSTALLED)  ## regenerate docs/configuration.md from the schema
	$(PY) scripts/settings_page.py

data:  ## regenerate the demonstration data (the same bytes)
	$(PYTHON) scripts/make_demo_data.py

sample: $(INSTALLED)  ## regenerate docs/sample_output.txt from the demonstration
	@{ echo '$$ make demo     (this file is what it printed; renew it with: make sample)'; echo; \
	  $(MAKE) --no-print-directory demo; } >docs/sample_output.txt 2>&1

bench: bench-data $(INSTALLED)  ## run the benchmarks on public data, DATA=FOLDER (docs/benchmarks.md)
	$(PY) benchmarks/accuracy.py snips --data "$(DATA)" $(ARGS)
	$(PY) benchmarks/accuracy.py banking77_wnut17 --data "$(DATA)" $(ARGS)
	$(PY) benchmarks/training.py --data "$(DATA)/snips" $(ARGS)

bench-data:
	@test -d "$(DATA)" || { \
	  echo "error: make bench DATA=FOLDER, where FOLDER holds the data sets of docs/benchmarks.md"; \
	  exit 1; }

soak: $(INSTALLED_DEV)  ## run the long tests: many kills, many generated cases
	$(TEST_ENV) $(PY) -m pytest -m soak $(ARGS)

clean:  ## remove build results and caches; models and the environment stay
	rm -rf build dist site *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks scripts docker -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that does not start (its Python is gone, or it was moved) is created again.
define make_venv
	@if ! $(PY) -c '' 2>/dev/null; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); Manyheads needs Python 3.10 or newer."; \
	    echo "Install one, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: $(PYTHON) has no venv module. On Debian or Ubuntu: apt install python3-venv"; \
	    exit 1; }; \
	  echo "Setting up $(VENV)"; \
	  $(PYTHON) -m venv --clear $(VENV); \
	fi
endef

$(INSTALLED):
	$(make_venv)
	$(PY) -m pip install --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --disable-pip-version-check --no-deps -e .
	@rm -f $(VENV)/.installed-[0-9]* && touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PY) -m pip install -q --disable-pip-version-check --use-pep517 -r requirements-dev.txt
	@rm -f $(VENV)/.installed-dev-* && touch $@

# Works on a fresh clone with nothing but Python 3.11 or newer: everything is installed into .venv.
#
#   PYTHON=python3.12              the interpreter .venv is made with (default: the first usable one)
#   TORCH=torch==2.13.0            what pip is asked for before all else (a path to a wheel will do)
#   PIP_ARGS='--extra-index-url …' more words for each `pip install`
#   WORKERS=4                      how many tests run at once (default: 2), a thread each
#   PYTEST_ARGS='-k routing -x'    more words for pytest
#   APP_ARGS='--port 8000'         more words for the demo page

MODEL ?= fsrcnn-pcsr-x4
TRAIN ?= data/DIV2K/DIV2K_train_HR

WORKERS ?= 2

RUN := .venv/bin/python
PYTEST = OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo app release notebooks docs docs-serve test test-all browser-test lint types check format wheel wheel-check clean distclean core-env demo-env dev-env

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: core-env ## upscale a shipped photograph x4 in five ways and compare them
	$(RUN) -m pcsr_lightning.demo

app: demo-env ## serve the demo page on 127.0.0.1 (APP_ARGS='--port 8000' for more words)
	$(RUN) -m pcsr_lightning.app $(APP_ARGS)

release: core-env ## train (or take WEIGHTS=… MADE=…), measure, write MODEL=… (ON=gpu TRAIN= VALID= TEST= WORDS=)
	$(RUN) -m pcsr_lightning.release $(MODEL) $(if $(ON),--on $(ON)) \
		$(if $(WEIGHTS),--weights "$(WEIGHTS)" --made "$(MADE)" $(if $(SCALES),--scales $(SCALES)),--train "$(TRAIN)") $(if $(VALID),--valid "$(VALID)") \
		$(if $(TEST),--test $(TEST)) $(if $(ABOUT),--about-data "$(ABOUT)") $(if $(OUT),--out "$(OUT)") -- $(WORDS)

notebooks: dev-env ## run the notebooks and keep their outputs (SET14=FOLDER for the third)
	$(RUN) notebooks/execute.py

test: dev-env ## run the tests, but for the slow ones and those in a browser
	$(PYTEST) $(PYTEST_ARGS)

test-all: dev-env ## run the slow tests too: whole benchmarks, exports to ONNX
	$(PYTEST) -m "not browser" $(PYTEST_ARGS)

docs: dev-env ## build the documentation into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

docs-serve: dev-env ## show the documentation in a browser, and changes as they are made
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs serve

browser-test: dev-env ## try the demo page in a real Chromium, which has to be installed
	$(PYTEST) -m browser tests/browser $(PYTEST_ARGS)

lint: dev-env ## check style, formatting and which module imports which
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	.venv/bin/lint-imports --no-cache

types: dev-env ## check the types
	$(RUN) -m mypy

check: lint types test ## lint, types and test

format: dev-env ## mend style and formatting in place
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

wheel: dev-env ## build the sdist, and from it the wheel, into dist/
	$(RUN) -m build --outdir dist

wheel-check: core-env ## build the wheel, install it elsewhere and run the three commands there
	scripts/wheel_check.sh

clean: ## remove what builds and tools leave behind (outputs/ and .venv stay)
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests scripts -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf .venv .venv.discarded

# Return at once when .venv is up to date.
core-env:
	@scripts/install.sh core

demo-env:
	@scripts/install.sh demo

dev-env:
	@scripts/install.sh dev

# Two commands to know: `make book` builds and serves the site, `make test` checks everything.
# Every command makes .venv by itself the first time, and again when the requirements change.

PYTHON ?= python3
PORT ?= 0
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
TEST_READY := $(VENV)/.ready-test
SITE := _build/html
# Tests share the cores between worker processes, so each keeps to one thread.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
WORKERS ?= 2

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help book site lab test test-unit test-notebooks test-site bench notebooks figures wheel \
	repository lint clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

# The stamp says where the checkout was: once it has moved, the paths inside .venv are wrong.
ifneq "$(shell cat $(READY) 2>/dev/null)" "$(CURDIR)"
$(shell rm -f $(READY))
endif

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@printf '%s\n' "$(CURDIR)" > $@

$(TEST_READY): $(READY) requirements-test.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

book: site  ## build the site and serve it at a printed local address
	$(RUN) tools/serve.py $(SITE) --port $(PORT)

site: $(READY)  ## build the site into _build/html from the committed outputs
	$(RUN) tools/build_site.py _build

lab: $(READY)  ## open JupyterLab on the notebooks
	$(RUN) -m jupyterlab notebooks

test: test-unit test-notebooks test-site  ## all tests: units, notebooks re-run, site, browser

test-unit: $(TEST_READY)  ## unit tests and the structure of the notebooks
	$(ONE_THREAD) $(RUN) -m pytest -q -n $(WORKERS) --dist loadfile tests \
		--ignore=tests/site --ignore=tests/browser --ignore=tests/benchmarks

test-notebooks: $(TEST_READY)  ## re-run every notebook and compare its text outputs
	$(ONE_THREAD) $(RUN) -m pytest -q --nbval notebooks --nbval-sanitize-with tests/notebooks/sanitize.cfg \
		-p no:cacheprovider -n $(WORKERS) --dist loadfile

test-site: $(TEST_READY)  ## build the site from clean, then read it in a browser
	$(ONE_THREAD) $(RUN) -m pytest -q -n $(WORKERS) --dist loadfile tests/site tests/browser

bench: $(TEST_READY)  ## measure speed against other libraries; writes book/benchmarks.json
	rm -f book/benchmarks.json
	failed=0; for file in tests/benchmarks/test_*.py; do \
		$(RUN) -m pytest -q $$file --save-results book/benchmarks.json || failed=1; done; \
		exit $$failed

notebooks: $(READY)  ## re-run every notebook in place, with clean metadata
	$(RUN) tools/run_notebooks.py notebooks/*.ipynb

figures: $(READY)  ## draw the pictures of the landing page again
	$(RUN) book/_figures.py

wheel: $(READY)  ## build dist/companion_lib-*.whl, for upload to Colab
	$(RUN) -m hatchling build -t wheel

repository: $(READY)  ## make repository URL=https://github.com/OWNER/NAME
	$(if $(filter command,$(origin URL)),,$(error Give the address: make repository \
		URL=https://github.com/OWNER/NAME, or an empty URL= to take it out))
	$(RUN) tools/repository.py "$(URL)"

lint: $(TEST_READY)  ## style and common mistakes
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:  ## remove what was built; keeps .venv
	rm -rf _build dist .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

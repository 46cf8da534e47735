# 'make help' lists the targets. They run in .venv, with the versions in requirements.lock. PACKAGES=newest and
# PACKAGES=oldest use environments of their own, with the newest or oldest versions that requirements.txt allows.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
PORT ?= 8000
PACKAGES ?= locked
VENV := .venv$(if $(filter-out locked,$(PACKAGES)),-$(PACKAGES))
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
FROM_locked := --require-hashes -r requirements.lock
FROM_newest := -r requirements.txt
FROM_oldest := -r <(sed 's/>=/==/' requirements.txt)
# Tests spend most of their time compiling. XLA's older code generator halves that time; compiling in one piece, without
# LLVM's expensive passes and without the places of the source shortens it further. The stored outputs come from the newer
# generator, XLA's default, so comparing them here checks both. XLA does not start with an unknown flag, so only the
# locked version has them.
XLA_QUICK := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 --xla_llvm_disable_expensive_passes=true
COMPILED_locked := XLA_FLAGS="$${XLA_FLAGS:-} $(XLA_QUICK)" JAX_TRACEBACK_IN_LOCATIONS_LIMIT=0
PYTEST := $(COMPILED_$(PACKAGES)) $(BIN)/pytest -n auto
NOTEBOOKS := $(wildcard book/*.ipynb)
BOOK := _build/html/index.html

NAMES ?=

.PHONY: help book serve jupyter test lint unit slow notebooks browser outputs benchmarks records others pdf package publish address colab lock vendor clean install

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1	\2/' | expand -t 18

install: $(INSTALLED) ## make the virtual environment, with the locked versions and this library

$(INSTALLED): requirements.$(if $(filter locked,$(PACKAGES)),lock,txt) pyproject.toml
	@test -n "$(filter $(PACKAGES),locked newest oldest)" || { echo "PACKAGES: expected locked, newest or oldest, got '$(PACKAGES)'." >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed, and '$(PYTHON)' was not found: install it, or say make PYTHON=/path/to/python." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1): install a newer one, or say make PYTHON=/path/to/python." >&2; exit 1; }
	@echo "Installing into $(VENV) (a minute or two, once) ..."
	@mkdir -p $(VENV)
	@$(PYTHON) -m venv $(VENV) >$(VENV)/install.log 2>&1 || { echo "Python could not make a virtual environment: install its venv module (on Debian and Ubuntu: apt-get install python3-venv; $(VENV)/install.log has the details)." >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --retries 2 $(FROM_$(PACKAGES)) >>$(VENV)/install.log 2>&1 \
	&& $(BIN)/python -m pip install --quiet --no-deps $(if $(filter locked,$(PACKAGES)),--no-build-isolation) -e . >>$(VENV)/install.log 2>&1 \
	|| { echo "The packages could not be installed: is there a network? ($(VENV)/install.log has the details)" >&2; exit 1; }
	@touch $@

book: $(INSTALLED) ## build the book, executing only what has changed since its outputs were stored
	@rm -rf _build/html
	@$(BIN)/jupyter-book build . --all -W --keep-going --path-output .
	@echo; echo "The book is ready: open file://$(CURDIR)/$(BOOK), or run 'make serve'."

serve: book ## serve the book on http://localhost:8000 (PORT=... for another port)
	@echo "Serving on http://localhost:$(PORT) (stop with Ctrl-C)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

jupyter: $(INSTALLED) ## open the chapters in JupyterLab, to edit and run them (installs it the first time)
	@test -x $(BIN)/jupyter-lab || $(BIN)/python -m pip install --quiet "jupyterlab>=4"
	@$(BIN)/jupyter-lab book

test: lint unit notebooks book browser ## run all tests but the slow ones; CI runs those too

lint: $(INSTALLED) ## run the linters and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/typed_program.py

unit: $(INSTALLED) ## test the library, without its slow tests
	$(PYTEST) -m "not browser and not slow"

slow: $(INSTALLED) ## run the tests that take more than about five seconds each (of the pages too, after make book)
	$(PYTEST) -m slow

notebooks: $(INSTALLED) ## execute the notebooks and compare their outputs with the stored ones
	$(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout 1800 --nbval-sanitize-with tests/book/sanitize.cfg -p no:cacheprovider --dist loadfile --no-loadscope-reorder $(NOTEBOOKS)

browser: book ## test the built pages in a browser, without the slow tests
	$(BIN)/pytest -m "browser and not slow" -n auto

outputs: $(INSTALLED) ## execute the notebooks and store their outputs in place, after a change
	$(BIN)/python book/execute.py $(NOTEBOOKS)

benchmarks: $(INSTALLED) ## time the library and the packages of 'make others', and store the results (over two hours)
	$(BIN)/python book/data/records.py benchmarks.json laplacian.json many-points.json training-speed.json compile-time.json devices.json scale.json

records: $(INSTALLED) ## list the recorded runs and what they cost; NAMES="scale.json ..." or NAMES=all makes them again
	@$(BIN)/python book/data/records.py $(NAMES)

others: ## make the environments of the packages that the benchmarks compare with
	for name in others neural-tangents neural-tangents-older optimisers; do \
	  $(PYTHON) -m venv .venv-$$name && .venv-$$name/bin/python -m pip install --quiet -r tests/benchmarks/requirements-$$name.txt; \
	done

pdf: book ## print the book into _build/pinnntk.pdf (needs Chromium or Chrome)
	@$(BIN)/python -c "import pypdf" 2>/dev/null || $(BIN)/python -m pip install --quiet "pypdf>=5"
	@$(BIN)/python book/pdf.py _build/pinnntk.pdf

package: $(INSTALLED) ## build the package into dist, and try the wheel in an environment of its own
	$(BIN)/python tests/package_program.py

publish: ## write the repository's address into the notebooks, in place (REPOSITORY=https://github.com/...)
	$(PYTHON) book/_ext/colab.py $(NOTEBOOKS)

address: ## write the repository's address into the package's files, in place (REPOSITORY=https://github.com/...)
	$(PYTHON) book/_ext/colab.py pyproject.toml README.md .conda/meta.yaml .github/ISSUE_TEMPLATE/config.yml

colab: ## run a chapter as Colab would (FREEZE=file with the list of Colab's packages)
	$(PYTHON) tests/colab_program.py $(FREEZE)

lock: ## refresh requirements.lock from requirements.txt (needs uv)
	uv pip compile --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --upgrade requirements.txt -o requirements.lock

vendor: ## fetch the browser libraries in book/vendor again (needs npm)
	$(PYTHON) book/fetch_vendor.py

clean: ## remove what was built and the virtual environments
	rm -rf .venv .venv-* _build

.DEFAULT:
	@echo "There is no target '$@': 'make help' lists them." >&2; exit 2

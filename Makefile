# make demo      set up, then the two-moons experiment
# make setup     everything into .venv; then `source .venv/bin/activate`
# make test      set up, then format, lint, import rules, tests and doctests
# make test-all  the same with the slow tests
# make test-lowest  the tests with every dependency at its lower bound, in .lowest
# make bench     the benchmarks beside the peers, to benchmarks/results (an hour and a half)
# make bench-check   their ratios against the committed ones, at small sizes
# make bench-density      densities side by side at equal seconds and steps (hours; it goes
#                         on where it stopped); ARGS="--form quick" an hour and a half,
#                         ARGS="--form rows" small tables, ARGS=--draw the docs
# make bench-gpu-wheels   fetch what the next one needs besides jax, into .accelerator
# make bench-gpu          the benchmark of an accelerator; needs jax with CUDA, no network
# make bench-tpu          what the compiler of TPUs makes of the programs; no TPU needed
# make docs      the documentation, to site/: an error for each warning and broken link
# make clean     remove the environment, the caches and the runs
# Another interpreter: make test PYTHON=python3.13

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Expanded in a recipe, when the environment has its interpreter.
LOCK = constraints/$$($(BIN)/python -c 'import sys; \
  print("py311" if sys.version_info < (3, 12) else "py313")').txt
INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check \
  --constraint "$(LOCK)" --editable

.PHONY: demo setup check test test-all test-lowest bench bench-check bench-density bench-gpu \
  bench-gpu-wheels bench-tpu docs clean

demo: $(STAMP)
	$(BIN)/rbig-nnx demo

setup: $(VENV)/.dev

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

test: check
	$(BIN)/python -m pytest

test-all: check
	$(BIN)/python -m pytest -m ""

test-lowest:
	$(PYTHON) -m venv --clear .lowest
	.lowest/bin/python -m pip install -qq --disable-pip-version-check \
	  --constraint constraints/lowest.txt --editable '.[test]'
	.lowest/bin/python -m pytest

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

bench-check: $(VENV)/.bench
	$(BIN)/python -m benchmarks --quick --check

bench-density: $(VENV)/.bench
	$(BIN)/python -m benchmarks.density $(ARGS)

bench-tpu: $(VENV)/.tpu
	$(BIN)/python -m benchmarks.tpu $(ARGS)

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict --clean

PACK := .accelerator

bench-gpu-wheels: $(VENV)/.bench
	$(BIN)/python -m benchmarks.accelerator.pack --folder $(PACK)

# With the machine's own Python, which has jax: what is packed lies before it on the path.
bench-gpu:
	@test -d $(PACK)/wheels || { echo 'No $(PACK)/wheels:' \
	  'run make bench-gpu-wheels where there is a network, and bring the folder.' >&2; \
	  exit 1; }
	$(PYTHON) -m pip install -qq --disable-pip-version-check --no-index --no-deps \
	  --no-compile --upgrade --target $(PACK)/site $(PACK)/wheels/*.whl
	PYTHONPATH=$(PACK)/site RBIG_NNX_TABLES=$(PACK) XLA_PYTHON_CLIENT_MEM_FRACTION=.92 \
	  $(PYTHON) -m benchmarks.accelerator $(ARGS)

# What the demo does not need comes when something else is made.
$(VENV)/.dev: EXTRAS = dev
$(VENV)/.bench: EXTRAS = dev,bench
$(VENV)/.tpu: EXTRAS = dev,bench,tpu
$(VENV)/.docs: EXTRAS = docs
$(VENV)/.dev $(VENV)/.bench $(VENV)/.tpu $(VENV)/.docs: $(STAMP)
	@echo 'Installing what $(EXTRAS) needs (a minute or two)'
	@$(INSTALL) '.[$(EXTRAS)]'
	@touch $@

# Without the stamp the environment is incomplete, so it is made anew.
$(STAMP): pyproject.toml $(wildcard constraints/*.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'rbig-nnx needs Python 3.11 or newer; `$(PYTHON)` is' \
	    "$$($(PYTHON) --version 2>&1 || true)." \
	    'Say which to use: make $(MAKECMDGOALS) PYTHON=python3.11' >&2; exit 1; }
	@echo 'Installing rbig-nnx and its pinned dependencies into $(VENV) (a minute)'
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  echo 'The `venv` module of `$(PYTHON)` does not work;' \
	    'on Debian and Ubuntu install the package python3-venv.' >&2; exit 1; }
	@$(INSTALL) '.[plot]'
	@touch $@

clean:
	rm -rf $(VENV) runs dist build site .pytest_cache .ruff_cache .import_linter_cache \
	  .hypothesis
	find rbig_nnx trainers tests examples benchmarks -name __pycache__ -prune \
	  -exec rm -rf {} +

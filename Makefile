# make demo | test | check | docs | bench | bench-gradcheck: each builds the virtual environment it needs when that is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS_demo := examples
EXTRAS_test := test,examples
EXTRAS_dev := test,examples,onnx,docs,dev
EXTRAS_bench := examples,bench
.PHONY: demo test check docs bench bench-gradcheck clean

demo: $(VENV)/demo.ready
	$(BIN)/python -m examples.user_profile --out out

test: $(VENV)/test.ready
	$(BIN)/python -m pytest -q -rs

check: $(VENV)/dev.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

docs: $(VENV)/dev.ready
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(VENV)/bench.ready
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python -m benchmarks $(SUITES)

bench-gradcheck: $(VENV)/bench.ready
	JAX_PLATFORMS=cpu OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.gradcheck

clean:
	rm -rf $(VENV) out build docs/_build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The data sets of the example are part of its set-up; an import should not have to compile the package each time.
$(VENV)/%.ready: pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) for $*: a minute or two, the first time"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(EXTRAS_$*)]"
	$(BIN)/python -m examples.user_profile.collect
	$(BIN)/python -m compileall -q nnprofile examples
	$(BIN)/python -c 'import nnprofile; nnprofile.warmup()'
	@touch $@

# make demo | recommend | test | page | course | docs | check | bench | bench-gradcheck: each makes the virtual environment that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS_demo := examples
EXTRAS_recommend := examples,parquet
EXTRAS_test := test,examples
EXTRAS_page :=
EXTRAS_course := docs
EXTRAS_docs := docs,examples,parquet,onnx
EXTRAS_dev := test,examples,parquet,onnx,docs,dev
EXTRAS_bench := examples,parquet,bench
.PHONY: demo recommend test page course docs check bench bench-gradcheck clean
SPHINX = $(BIN)/sphinx-build -W --keep-going -q -b html

demo: $(VENV)/demo.ready
	$(BIN)/python -m examples.user_profile --out out

recommend: $(VENV)/recommend.ready
	$(BIN)/python -m examples.recommendation --out out/recommendation

test: $(VENV)/test.ready
	$(BIN)/python -m pytest -q -rs -n auto --dist loadfile

check: $(VENV)/dev.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

page: $(VENV)/page.ready
	@mkdir -p out
	@for example in document mazur cs231n xor; do $(BIN)/python -m nnprofile trace --example $$example --out out/$$example.html || exit 1; done

# The mathematics first: a page of the library that fails or takes long leaves these where they are.
course: $(VENV)/course.ready
	$(SPHINX) -t course -d docs/_build/course docs docs/_build/html
	@echo "open docs/_build/html/index.html"

docs: $(VENV)/docs.ready
	$(SPHINX) -t course -d docs/_build/course docs docs/_build/html; mathematics=$$?; \
	$(SPHINX) -d docs/_build/doctrees docs docs/_build/html && exit $$mathematics
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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".$(if $(EXTRAS_$*),[$(EXTRAS_$*)])"
	$(if $(findstring examples,$(EXTRAS_$*)),$(BIN)/python -m examples.user_profile.collect)
	$(if $(findstring parquet,$(EXTRAS_$*)),$(BIN)/python -m examples.recommendation.collect)
	$(BIN)/python -m compileall -q nnprofile examples
	$(if $(findstring examples,$(EXTRAS_$*)),$(BIN)/python -c 'import nnprofile; nnprofile.warmup()')
	@touch $@

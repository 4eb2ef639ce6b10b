# Two commands from a fresh clone: `make demo` and `make test`. Both need python3 (3.11 or newer) and make only.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

# Nothing here reports home, and no test reaches a model hub.
export MLFLOW_DISABLE_TELEMETRY := true
export DAGSTER_DISABLE_TELEMETRY := 1
# Compiling the libraries anew in every process would make each of them start ten times slower.
unexport PYTHONDONTWRITEBYTECODE

# uv does not read pip's settings; a local folder of wheels and a private index are handed on.
comma := ,
space := $(subst ,, )
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs bench install clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: install  ## run the main job on the embedded corpus and print the comparison
	@$(BIN)/sumi run demo --jobs 3

test: install  ## run the tests; ARGS="-k store" goes to pytest
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: install  ## check style and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/lint-imports --no-cache

types: install  ## check types
	@$(BIN)/mypy

docs: install  ## build the documentation into site/; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install  ## print the benchmarks' ratios
	@for file in benchmarks/[!_]*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

install: $(VENV)/.installed  ## create .venv and install the exact versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed, which '$(PYTHON)' is not; name one, as in: make $(or $(MAKECMDGOALS),install) PYTHON=python3.12" >&2; \
	    exit 1; }
	@echo "installing into $(VENV): a minute or two and 2 GB, more where torch brings CUDA"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools uv \
	    && $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt --no-build-isolation -e '.[dev,mauve]' \
	    || { echo "uv could not install; going on with pip, which takes longer"; \
	         $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools \
	         && $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev,mauve]'; }
	@touch $@

clean:  ## remove .venv and caches; what was computed (.sumi/) stays
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

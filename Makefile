# Every target sets up what it needs: a virtual environment in .venv, with the exact files of
# constraints.txt, each compared with its hash. It uses uv where that is installed, and venv and pip
# elsewhere.

PYTHON ?= python3
BIN := .venv/bin
# Containers often set it. Then every process that a test starts compiles every module again: half of
# the processor time of the tests.
unexport PYTHONDONTWRITEBYTECODE
READY := .venv/ready

.PHONY: help demo test test-fast test-long test-newest lint bench screenshots audit containers constraints clean

help:
	@echo "make demo          the whole pipeline at work, against an invented agency"
	@echo "make test          lint, types and all tests but the long ones: before each merge"
	@echo "make test-fast     the tests without runs, servers and browsers: after each change"
	@echo "make test-long     chaos, ten thousand events, random kills, properties at length"
	@echo "make test-newest   the Dagster layer's tests on the newest Dagster of its range"
	@echo "make lint          lint and types alone"
	@echo "make bench         the benchmarks, as tables; one of them: make bench ONLY=daily"
	@echo "make screenshots   take the pictures of the README again"
	@echo "make audit         secrets, vulnerabilities, licences, bill of materials: in dist/audit/"
	@echo "make containers    build the image and run compose.yaml and pods (root, podman, buildah, runc, debootstrap)"
	@echo "make constraints   write the pinned versions and their hashes from pyproject.toml (needs uv)"
	@echo "make clean         remove the virtual environment, caches, and ALL state in .kpi/"

PIP := $(BIN)/python -m pip --disable-pip-version-check

# An environment with the packages of a file and no other, each compared with its hash.
define install
	if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --seed --python "$(PYTHON)" $(1) && \
		uv pip install --quiet --no-deps --require-hashes --python $(1)/bin/python -r $(2); \
	else \
		$(PYTHON) -m venv $(1) && \
		$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(2); \
	fi
endef

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 …"; exit 1; }
	@$(call install,.venv,constraints.txt)
	@$(PIP) --python $(BIN)/python install --quiet --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY)
	@$(BIN)/kpi demo

# Three processes on two cores: a test with servers mostly waits. Tests that share what they
# started stay together: see conftest.py.
SIDE_BY_SIDE := -n 3 --no-loadscope-reorder
# One test uses schemathesis, as a library; its plugin would cost each pytest process a second.
PYTEST := $(BIN)/pytest -p no:schemathesis

test: lint
	@$(PYTEST) $(SIDE_BY_SIDE) -m "not alone and not long"

test-fast: $(READY)
	@$(PYTEST) -n 2 --no-loadscope-reorder \
		-m "not (server or runs or browser or waits or alone or long)"

# How many runs of 60 steps the state machine of all rows makes: ten minutes of processor time.
RUNS := 200
# With how many examples a property is tried: `long` is 200, `ci` 80; in `make test` it is 20.
PROFILE := long
# `weekly` leaves out what takes minutes: CI has twelve for everything.
WITHOUT :=

# Four processes: these tests wait for daemons most of their time.
test-long: $(READY)
	@$(PYTEST) -m alone kpi_pipeline_tests/processes
	@PYTEST_RUNS=$(RUNS) $(PYTEST) -n 4 --no-loadscope-reorder --hypothesis-profile $(PROFILE) \
		-m "(long or thorough) and not alone$(if $(WITHOUT), and not $(WITHOUT))"

# Its own environment: the exact versions of constraints.txt, but for Dagster's.
test-newest:
	@$(PYTHON) -m venv .venv-newest
	@sed -n '/^dagster/d; s/ *\\$$//; /==/p' constraints.txt > .venv-newest/constraints.txt
	@.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade \
		-c .venv-newest/constraints.txt -e '.[dev]'
	@.venv-newest/bin/python -m pip list --disable-pip-version-check | grep '^dagster'
	@.venv-newest/bin/python -m pytest -n 2 -m "not long" kpi_pipeline_tests/orchestration

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY)
	@$(BIN)/python -m benchmarks $(ONLY)

screenshots: $(READY)
	@$(BIN)/python -m docs.screenshots

# Secrets in the tree and its history, known vulnerabilities of the pinned packages, their licences,
# and a bill of materials of the product: reports are in dist/audit/.
audit: $(READY)
	@$(call install,.venv-audit/tools,audit/requirements.txt)
	@$(call install,.venv-audit/product,requirements.txt)
	@$(PIP) --python .venv-audit/product/bin/python check
	@$(BIN)/python -m audit

# The image is built, compose.yaml and the pods are run, and nothing of it stays but images.
containers: $(READY)
	@KPI_TEST_CONTAINERS=required $(PYTEST) kpi_pipeline_tests/containers --durations=10

# constraints.txt: everything, for development. requirements.txt: what the product needs, of these
# versions, with what images add. audit/requirements.txt: the tools of `make audit`.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	--no-emit-index-url --generate-hashes
constraints:
	@$(COMPILE) --extra dev pyproject.toml -o constraints.txt
	@$(COMPILE) --extra kubernetes -c constraints.txt pyproject.toml -o requirements.txt
	@$(COMPILE) audit/requirements.in -o audit/requirements.txt

clean:
	@rm -rf .venv .venv-newest .venv-audit .kpi .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

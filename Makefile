# Every target sets up what it needs by itself: a virtual environment in .venv, with the exact
# versions of constraints.txt. It takes uv where it is installed, and venv and pip elsewhere.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: help demo test lint bench screenshots constraints clean

help:
	@echo "make demo          the whole pipeline at work, against an invented agency"
	@echo "make test          lint, types and all tests"
	@echo "make lint          lint and types alone"
	@echo "make bench         the benchmarks, as tables; one of them: make bench ONLY=daily"
	@echo "make screenshots   the pictures of the README, made anew"
	@echo "make constraints   constraints.txt made anew from pyproject.toml (needs uv)"
	@echo "make clean         remove the virtual environment, caches, and ALL state in .kpi/"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 …"; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python "$(PYTHON)" .venv && \
		uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	fi
	@touch $(READY)

demo: $(READY)
	@$(BIN)/kpi demo

# Three at a time, on two cores: a test mostly waits. Those that share what they started stay
# together: see conftest.py.
test: lint
	@$(BIN)/pytest -m alone
	@$(BIN)/pytest -n 3 --no-loadscope-reorder -m "not alone"

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY)
	@$(BIN)/python -m benchmarks $(ONLY)

screenshots: $(READY)
	@$(BIN)/python -m kpi_pipeline_tests.browser.screenshots

constraints:
	@uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header \
		--no-annotate --no-emit-index-url pyproject.toml -o constraints.txt

clean:
	@rm -rf .venv .kpi .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

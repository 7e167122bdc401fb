# make demo   watch the whole pipeline run on this machine
# make test   run the test suite
# Every target is idempotent and creates .venv on first use (with uv when it is there, with pip otherwise).

# The first of these that is Python 3.11 to 3.13; override with: make PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)
ifdef UV
PIP := uv pip install --python $(BIN)/python --quiet
else
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: install demo test kafka chaos lint house bench clean help
.DEFAULT_GOAL := help

help:
	@sed -n '1,3s/^# //p' Makefile; echo 'make kafka  a real Apache Kafka on 127.0.0.1:9092 until Ctrl-C (PORT=9192 for another port)'; echo 'make chaos  every fault against a real Apache Kafka, each with an audit (ARGS=--list names them)'; echo 'make lint   ruff and mypy'; echo 'make house  the size and shape of the code in figures'; echo 'make bench  benchmarks, each printed with its limit or its peer'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and none was found; set PYTHON=/path/to/python" >&2; exit 2; }
ifdef UV
	uv venv --quiet --python "$(PYTHON)" .venv
else
	"$(PYTHON)" -m venv .venv || { rm -rf .venv; echo "python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
endif

.venv/.model: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Rexstream with the model extra into .venv (about 300 MB on first use) ..."
	$(PIP) -c constraints.txt -e '.[model]'
	@touch $@

.venv/.dev: .venv/.model
	@echo "installing what the tests need ..."
	$(PIP) -c constraints.txt -e '.[model,dev]'
	@# The official protos, for the test that compares ours with them. Its declared dependency is the distribution
	@# "tensorflow", which would overwrite "tensorflow-cpu" with the same files.
	$(PIP) --no-deps -c constraints.txt tensorflow-serving-api
	@touch $@

install: .venv/.dev

demo: .venv/.model
	@$(BIN)/rexstream demo $(ARGS)

test: .venv/.dev
	$(BIN)/python -m pytest $(ARGS)

kafka: .venv/.dev
	@$(BIN)/python tests/support/kafka_server.py $(if $(PORT),--port $(PORT))

chaos: .venv/.dev
	@PYTHONPATH=tests:tests/support $(BIN)/python -m chaos $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

house: .venv/.dev
	@PYTHONPATH=tests:tests/support $(BIN)/python -m house $(ARGS)

bench: .venv/.dev
	@set -e; for b in tests/bench/*.py; do echo "== $$b"; $(BIN)/python $$b; done

clean:
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

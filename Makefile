# Every target is idempotent and creates .venv on first use (with uv when it is there, with pip otherwise).
# `make help` prints what stands behind the two number signs.

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

.PHONY: install demo test train train-install kafka chaos rehearsal deploy-check cluster pictures manifests lint docs house lock sbom bench clean help
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /make \1|/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

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
	$(PIP) -c constraints.txt -e '.[model,otel,dev]'
	@# The official protos, for the test that compares ours with them. Its declared dependency is the distribution
	@# "tensorflow", which would overwrite "tensorflow-cpu" with the same files.
	$(PIP) --no-deps -c constraints.txt tensorflow-serving-api
	@touch $@

install: .venv/.dev  ## everything that the demo, the tests and the linters need, into .venv

demo: .venv/.model  ## watch the whole pipeline run on this machine (ARGS=--help)
	@$(BIN)/rexstream demo $(ARGS)

test: .venv/.dev  ## run the test suite (ARGS="-k kafka"; ARGS=--cov for coverage of the pure core; ARGS="-n0 --pdb")
	$(BIN)/python -m pytest -n 4 $(ARGS)

# PyTorch is several gigabytes with the libraries that its usual build brings, so it has an environment of its own.
.venv-train/.done: pyproject.toml constraints.txt deploy/demo-model/requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and none was found; set PYTHON=/path/to/python" >&2; exit 2; }
	@echo "installing PyTorch and Rexstream into .venv-train (several GB on first use) ..."
	@test -x .venv-train/bin/python || "$(PYTHON)" -m venv .venv-train
	.venv-train/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r deploy/demo-model/requirements.txt -e '.[model,dev]'
	@touch $@

train-install: .venv-train/.done  ## PyTorch for the demo model's recipe, into .venv-train

train: .venv-train/.done  ## train the demo model anew (DATA=folder START=archive; deploy/demo-model/README.md), or ARGS=--quick
	.venv-train/bin/python deploy/demo-model/train.py train $(if $(DATA),--data $(DATA)) $(if $(START),--start $(START)) $(ARGS)

kafka: .venv/.dev  ## a real Apache Kafka on 127.0.0.1:9092 until Ctrl-C (PORT=9192 for another port)
	@$(BIN)/python tests/support/kafka_server.py $(if $(PORT),--port $(PORT))

chaos: .venv/.dev  ## every fault against a real Apache Kafka, each with an audit (ARGS=--list names them)
	@PYTHONPATH=tests:tests/support $(BIN)/python -m chaos $(ARGS)

rehearsal: .venv/.dev  ## compose's stack as processes here, under load: updates, scaling, what dies; report in build/rehearsal (ARGS=--help)
	@$(BIN)/python tests/deploy/tools.py nginx prometheus
	@PYTHONPATH=tests:tests/support $(BIN)/python -m rehearsal $(ARGS)

deploy-check: .venv/.dev  ## deploy/ and the status page with Helm, nginx, Prometheus, Chromium (fetched into .cache on first use)
	@$(BIN)/python tests/deploy/tools.py
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/deploy $(ARGS)

pictures: .venv/.dev  ## docs/images from the status page of a real worker in a real browser
	@$(BIN)/python tests/deploy/tools.py
	@mkdir -p docs/images
	$(BIN)/python -m pytest -n 0 -q tests/deploy/test_status_page.py --pictures docs/images $(ARGS)

cluster: .venv/.dev  ## the chart in a real Kubernetes API server, scaled by the real KEDA (built into .cache on first use, half an hour)
	@$(BIN)/python tests/deploy/tools.py
	@PYTHONPATH=tests $(BIN)/python tests/cluster/tools.py
	$(BIN)/python -m pytest tests/cluster $(ARGS)

manifests: .venv/.dev  ## write deploy/kubernetes/rexstream.yaml from the Helm chart
	@$(BIN)/python tests/deploy/tools.py
	@PYTHONPATH=tests $(BIN)/python -c 'from deploy.chart import *; PLAIN.write_text(render(PLAIN_VALUES), encoding="utf-8")'

lint: .venv/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.dev  ## write docs/configuration.md, docs/asyncapi.yaml and the answers in docs/tasks.md
	@PYTHONPATH=tests $(BIN)/python -m house.configuration_doc
	@PYTHONPATH=tests $(BIN)/python -m house.task_examples
	@env -i PATH="$$PATH" $(BIN)/python -m consumer asyncapi --output docs/asyncapi.yaml

house: .venv/.dev  ## the size and shape of the code in figures (ARGS=--files names what is counted)
	@PYTHONPATH=tests:tests/support $(BIN)/python -m house $(ARGS)

LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade -c constraints.txt

lock:  ## write requirements*.lock, what the image installs with hashes (needs uv)
	@test -n "$(UV)" || { echo "uv is needed: only it resolves for every platform and Python at once" >&2; exit 2; }
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml --extra otel -o requirements-otel.lock
	echo hatchling | $(LOCK) - -o requirements-build.lock

sbom: .venv/.dev  ## write the software bill of materials (CycloneDX) into dist
	@PYTHONPATH=tests $(BIN)/python -m house.sbom $(ARGS)

bench: .venv/.dev  ## benchmarks against limits and peers, one report in build/bench, in minutes (ARGS=--full for hours; ARGS=--help)
	@PYTHONPATH=tests $(BIN)/python -m bench.report $(ARGS)

clean:  ## remove .venv and everything else that was made
	rm -rf .venv .venv-train .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find consumer deploy examples tests -name __pycache__ -prune -exec rm -rf {} +

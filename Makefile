# Every developer task has a target. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 60
PEERS := mosquitto iproute2 python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly chromium
PEERS_INSTALLED := { test -x /usr/sbin/mosquitto && command -v chromium >/dev/null && \
  /usr/bin/python3 -c "import gi; gi.require_version('GstRtspServer', '1.0')" 2>/dev/null; }
STAMP := $(VENV)/.installed
# Containers often set this. Each process would then compile each module at its start, and pytest each test file.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install kafka demo peers s3proxy test test-train tensorrt bench lint style types imports collect format lock train clean tools

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

tools:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing; Debian and Ubuntu: apt-get install python3.11 python3.11-venv"; exit 1; }
	@test -n "$$SIGHTLINE_KAFKA" || command -v java >/dev/null || { echo "make: a JDK (17 or newer) is missing; Debian and Ubuntu: apt-get install openjdk-17-jdk-headless"; exit 1; }
	@test -n "$$SIGHTLINE_KAFKA" || command -v mvn >/dev/null || { echo "make: Maven is missing; Debian and Ubuntu: apt-get install maven"; exit 1; }

$(STAMP): pyproject.toml requirements.lock
	@$(MAKE) --no-print-directory tools
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP) ## create the virtual environment from the lock file

kafka: install ## fetch Apache Kafka from Maven Central, once
	@$(BIN)/sightline kafka fetch

demo: install ## run the whole stack: SECONDS=60 SITE=… MODELS=… VIDEO=… LINE=… MODEL=… DECODER=… LABELS=… FUSED=1 REPORT=…
	@$(BIN)/sightline demo --seconds $(SECONDS) \
	  $(if $(SITE),--site $(SITE)) $(if $(MODELS),--models $(MODELS)) \
	  $(foreach v,$(VIDEO),--video $(v)) $(if $(LINE),--line $(LINE)) $(if $(LABELS),--labels $(LABELS)) $(if $(MODEL),--model $(MODEL)) \
	  $(if $(DECODER),--decoder $(DECODER)) $(if $(FUSED),--fused) $(if $(REPORT),--report $(REPORT))

lint: style types imports ## run ruff, mypy --strict and the import rules

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

collect: install # compile the tests once, not in each of pytest's processes
	@found=$$($(BIN)/pytest --collect-only -qq 2>&1) || { echo "$$found"; exit 1; }

peers: ## install the tests' RTSP server (GStreamer), MQTT broker (mosquitto) and browser from Debian
	@$(PEERS_INSTALLED) \
	  || { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PEERS) >/dev/null; } \
	  || echo "make: some tests will be skipped; Debian and Ubuntu: sudo apt-get install $(PEERS)"

s3proxy: .sightline/s3proxy ## fetch the tests' S3 server from Maven Central, once

.sightline/s3proxy: tests/contract/s3proxy/pom.xml
	@rm -rf $@.part && mvn -q -B -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$@.part \
	  && rm -rf $@ && mv $@.part $@ && touch $@ \
	  || echo "make: the tests of the evidence store on S3 will be skipped; they need mvn and Maven Central"

test: install peers s3proxy ## lint, then run every test on a real Kafka; chaos tests run last
	@$(MAKE) --no-print-directory --jobs 2 --output-sync types style imports kafka collect
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder -m "not chaos and not tensorrt"
	$(BIN)/pytest -n 3 --dist load --maxschedchunk 1 -m chaos tests/chaos

test-train: .venv-train/.installed ## run the tests that need Keras and TensorFlow
	.venv-train/bin/sightline kafka fetch
	.venv-train/bin/pytest -m train tests/training

tensorrt: .venv-tensorrt/.installed ## install the real TensorRT (533 MB from Maven Central) and pycuda for .venv-tensorrt/bin/pytest -m tensorrt

.venv-tensorrt/.installed: requirements-tensorrt.lock pyproject.toml deploy/tensorrt/install.py deploy/tensorrt/pycuda.txt
	$(PYTHON) -m venv .venv-tensorrt
	.venv-tensorrt/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-tensorrt.lock
	.venv-tensorrt/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	.venv-tensorrt/bin/python -m deploy.tensorrt.install .sightline
	@touch $@

bench: install kafka ## measure the pipeline; results go to benchmarks/results
	$(BIN)/python -m benchmarks.pipeline

.venv-train/.installed: requirements-train.lock pyproject.toml
	$(PYTHON) -m venv .venv-train
	.venv-train/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-train.lock
	.venv-train/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

train: .venv-train/.installed ## retrain the shipped model and write its confusion matrix
	.venv-train/bin/sightline train shipped

format: install ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: install ## resolve the lock files again
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile -q --no-header --no-annotate --generate-hashes --extra dev -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile -q --no-header --no-annotate --generate-hashes --extra dev --extra train -o requirements-train.lock pyproject.toml
	$(BIN)/uv pip compile -q --no-header --no-annotate --generate-hashes -o requirements-agent.lock deploy/agent/requirements.in
	$(BIN)/uv pip compile -q --no-header --no-annotate --generate-hashes --extra dev -c requirements.lock -o requirements-tensorrt.lock pyproject.toml deploy/tensorrt/requirements.in

clean: ## remove the environments, Kafka's data and build outputs
	rm -rf $(VENV) .venv-train .venv-tensorrt .sightline .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

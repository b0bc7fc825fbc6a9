# Two commands: `make reports` (reproduce everything) and `make test`. Both set up .venv by themselves, once.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1
export PYTHONHASHSEED := 0
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 1
MLFLOW_HOST ?= 127.0.0.1
MLFLOW_PORT ?= 5000
# uv does not read pip's settings: hand it the ones that say where packages are.
UV_SETTINGS = UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$PIP_INDEX_URL}"

.PHONY: help setup data reports reference test verify portable lab tensorboard mlflow serve clean notebooks sample-data picture accessible benchmarks size
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

setup: $(READY) ## make .venv with the locked versions (every other target does this when needed)

$(READY): settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"medlab needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}; try: make PYTHON=python3.12 ...")'
	@echo "setting up $(VENV) (once; a minute or two)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt uv
	@$(UV_SETTINGS) $(VENV)/bin/uv pip install -q --python $(VENV)/bin/python -c constraints.txt -e '.[lab,dev,serve]' \
	  || $(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[lab,dev,serve]'
	@touch $@

data: $(READY) ## get the versioned sample data from the DVC remote inside the repository
	@test -e .git || { echo "this folder is no git clone, and DVC needs one: clone the repository, or run: git init && git add -A && git commit -m start"; exit 1; }
	@test -d dvcstore || { echo "the folder dvcstore, which holds the sample data, is missing: clone the whole repository"; exit 1; }
	@dvc pull --quiet data.dvc || dvc pull data.dvc # once more, aloud

reports: data ## reproduce every result and report from the versioned data
	@python -m json.tool .dvc/tmp/rwlock >/dev/null 2>&1 || rm -f .dvc/tmp/rwlock # half-written when DVC was killed
	@dvc repro
	@echo && echo "Open in a browser:" && for page in reports/index.html reports/*/report.html; do echo "  $$PWD/$$page"; done

reference: data ## train at the size of the reference document (a day of lookback; wants a GPU) as a DVC experiment
	dvc exp run -n reference -S arithmetic=fast -S glucose.train.lookback=288 -S glucose.train.stride=1 -S glucose.train.hidden=128 -S glucose.train.max_epochs=50

test: $(READY) ## notebooks and package in sync, every notebook's lessons, pytest, ruff
	@tests/in_sync.sh
	@echo "running the notebooks' own tests" && IN_TEST=1 MEDLAB_PROGRESS=off MEDLAB_TRACKING=off OMP_NUM_THREADS=1 nbdev_test --n_workers 2
	@OMP_NUM_THREADS=1 pytest -q -n 2 --dist loadfile
	@ruff check -q . && ruff format -q --check . && echo "ruff: clean"

verify: $(READY) ## compare the reproduced results with the committed ones
	@medlab-verify

portable: $(READY) ## the same bits of every numeric library under emulated processors of two makers (needs qemu-user; an hour)
	@python tests/portable/check.py

lab: $(READY) ## explore the notebooks in JupyterLab
	@jupyter lab nbs

tensorboard: $(READY) ## look at learning curves
	@tensorboard --logdir logs

mlflow: $(READY) ## look at runs and registered models (MLFLOW_TRACKING_URI, or the store of this folder)
	@mkdir -p .medlab/mlflow && MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --workers 1 --host $(MLFLOW_HOST) --port $(MLFLOW_PORT) \
	  --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/.medlab/mlflow/mlflow.db}" --artifacts-destination "$(CURDIR)/.medlab/mlflow/artifacts"

serve: $(READY) ## answer requests with the studies' models on http://127.0.0.1:8000 (HOST=, PORT=, WORKERS=)
	@medlab-serve --host $(HOST) --port $(PORT) --workers $(WORKERS)

notebooks: $(READY) ## rerun all library notebooks and store their figures
	@nbdev_export && for n in nbs/[0-9]_*/*.ipynb nbs/5_studies/*/*.ipynb; do echo $$n; \
	  MEDLAB_PROGRESS=off jupyter nbconvert --log-level ERROR --to notebook --execute --inplace $$n || exit 1; \
	  python -c 'import sys, nbformat as f; from medlab.run.stage import scrub; n = sys.argv[1]; f.write(scrub(f.read(n, 4)), n)' $$n; \
	done && nbdev_clean

sample-data: $(READY) ## simulate the sample data again and version them (changes data.dvc)
	@python -m medlab.studies.glucose.simulate data/glucose && python -m medlab.studies.risk.simulate data/risk --patients 8000 --seed 1 \
	  && dvc add -q data && dvc push -q data.dvc

picture: $(READY) ## photograph the report's first screen for the README (needs chromium)
	@chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
	  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir=$$(mktemp -d) --window-size=1280,980 \
	  --screenshot=nbs/images/report.png "file://$$PWD/reports/glucose/report.html" 2>/dev/null

accessible: $(READY) ## every page through axe, html-validate and the Nu checker (needs node, npm and chromium)
	@python tests/browser/check.py reports/index*.html reports/*/report.html reports/*/translated/*.html reports/*/pages/*.html

benchmarks: $(READY) ## measure against what one would use instead; writes benchmarks/*.md
	@python benchmarks/run.py && OMP_NUM_THREADS=1 python benchmarks/bootstrap.py && python benchmarks/arithmetic.py --stages

size: $(READY) ## simulate how often each test cries wolf (half an hour); writes benchmarks/size.*
	@OMP_NUM_THREADS=1 python benchmarks/size.py

clean: ## remove the environment and everything that the pipeline made; data and sources stay
	@rm -rf $(VENV) artifacts logs .medlab .pytest_cache .ruff_cache *.egg-info build
	@git clean -qfdX reports medlab

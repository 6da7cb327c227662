# Everything runs in a virtual environment that the first call makes: `make demo VENV=DIR` reuses one.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.hiptrack-installed

.PHONY: install demo test test-fast soak lint clean

export PYTHONPATH := $(CURDIR)

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python -m hiptrack demo

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Without what starts processes, trains runs or computes for long (the marker `slow`): under two minutes.
test-fast: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# Half an hour of random kills and damaged input; `make soak SEED=N` repeats one.
soak: $(INSTALLED)
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR):$(CURDIR)/tests:$(CURDIR)/tests/support $(BIN)/python -m soak $(SEED)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(INSTALLED): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# opencv-python, which an environment of before has, and opencv-contrib-python own the same files
	! $(BIN)/python -m pip show -qq opencv-python || $(BIN)/python -m pip uninstall -qq --yes opencv-python opencv-contrib-python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-contrib build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

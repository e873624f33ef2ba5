# Two commands do everything on a machine with Python 3.11, make and git: `make demo` and `make test`.
PYTHON ?= python3
CORES ?= 2
PY := .venv/bin/python
# As modules: a script's first line cannot name an interpreter whose path holds a blank.
SNAKEMAKE := $(PY) -m snakemake --cores $(CORES) --keep-going --quiet rules --
# One thread per process: two runs side by side are faster than one on two threads, and give the same numbers anywhere.
export OMP_NUM_THREADS ?= 1
# glibc keeps freed memory: a training step asks for the same large arrays again and again, and mapping them anew takes
# a quarter of it (benchmarks/freed_memory.py). A process grows to its largest size and stays there. No number changes.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 2147483647

.PHONY: setup demo figures test lab notebooks site gpu clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || \
	  (echo "Python 3.11.5 or newer is needed; name one with: make setup PYTHON=/path/to/python3.11" && exit 1)
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv==$$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)
	.venv/bin/uv pip install --quiet --python $(PY) --no-deps --require-hashes -r requirements.lock
	.venv/bin/uv pip install --quiet --python $(PY) --no-deps -e .
	@touch $@

# Renders the demo domains, trains rows of the demo's Table 4, executes notebooks 00-04 and 08.
demo: setup
	$(SNAKEMAKE) demo
	@echo "Executed notebooks: runs/notebooks/   Table: runs/notebooks/08_tables.ipynb"

# Notebooks 06 (t-SNE) and 07 (Grad-CAM), from the runs of the demo.
figures: setup
	$(SNAKEMAKE) figures

# Notebook 05 is among the executed ones where its runs are finished (snakemake --cores 2 localization).
test: setup
	.venv/bin/ruff format --check --quiet nbkit tests tools benchmarks
	.venv/bin/ruff check --quiet nbkit tests tools benchmarks
	$(PY) -m pytest tests -n $(CORES) --dist loadfile
	ready=$$($(PY) tools/notebooks.py --ready) && \
	  $(PY) -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 1800 -n $(CORES) --dist loadscope -p no:cacheprovider $$ready

lab: setup
	$(PY) -m jupyterlab --notebook-dir notebooks

# Execute the committed notebooks again, in place, in the demo profile; write the generated blocks of README and docs/RESULTS.md anew.
notebooks: setup
	$(PY) tools/notebooks.py
	$(PY) -m tools.results_page
	$(PY) -m tools.readme

# Ten minutes on a GPU: whether the paper's batch trains, memory, clips per second, waiting for data.
gpu:
	$(if $(wildcard $(PY)),$(PY),$(PYTHON)) benchmarks/gpu.py

# The executed notebooks and the pages of docs/ as a site in .site/html; what it needs has an environment of its own.
site: .site/.ready
	.site/venv/bin/sphinx-build --quiet -c site . .site/html
	@echo "Open .site/html/site/index.html"

.site/.ready: site/requirements.txt
	$(PYTHON) -m venv .site/venv
	.site/venv/bin/python -m pip install --quiet --disable-pip-version-check -r site/requirements.txt
	@touch $@

clean:
	rm -rf runs data/cache data/features .snakemake

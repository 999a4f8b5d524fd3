# make serve: the gateway on config.yaml; EXTRAS=images,translation,vision installs these too.
# make test: every check.   make bench: the benchmark kit, side by side.
# make simulate: the model pool in 20,000 lives on a clock that jumps (SEEDS=n for another number).
# make matrix: what each client's abilities become behind each backend.
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= config.yaml

.PHONY: serve test lint simulate matrix bench clean

EXTRAS ?=
EXTRAS_STAMP := $(if $(EXTRAS),.venv/serve-$(EXTRAS).stamp)
serve: .venv/serve.stamp $(EXTRAS_STAMP)
	$(BIN)/dragoman serve --config $(CONFIG)

.venv/serve-%.stamp: .venv/serve.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

.venv/serve.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

# The second engine is compiled here (about 5 minutes, once), for a processor like any other and without OpenMP,
# whose spinning threads slow small models down.
.venv/test.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF" \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,llama-cpp-python,images,postgres,redis,s3,translation,vision]'
	touch $@ .venv/serve.stamp

tests/js/node_modules: tests/js/package-lock.json
	if command -v npm >/dev/null; then npm ci --prefix tests/js --no-audit --no-fund --loglevel=error; touch $@; \
	else echo "npm is not here: the JavaScript clients are left out"; fi

tests/js/frameworks/node_modules: tests/js/frameworks/package-lock.json
	if command -v npm >/dev/null; then npm ci --prefix tests/js/frameworks --no-audit --no-fund --loglevel=error; touch $@; fi

# What people use on top of the official clients; its pins are not ours.
.venv-frameworks/stamp: tests/frameworks/requirements.txt
	$(PYTHON) -m venv .venv-frameworks
	.venv-frameworks/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r $<
	touch $@

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

SEEDS ?= 20000
simulate: .venv/test.stamp
	$(BIN)/python -m tests.simulation $(SEEDS)

# Side by side, a file at a time: fixtures that start a gateway are shared by a file's tests. TESTS="-n 0" is one by one.
# The longest files go first (tests/conftest.py), so that none is left over for one process at the end.
TESTS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: lint simulate tests/js/node_modules tests/js/frameworks/node_modules .venv-frameworks/stamp
	$(BIN)/python -m pytest $(TESTS) --cov --cov-report=term:skip-covered --cov-fail-under=90

# Every client dialect x every backend x every ability, with the official SDKs; tests/matrix/README.md is the last result.
matrix: .venv/test.stamp tests/js/node_modules
	$(BIN)/python -m tests.matrix $(MATRIX)

bench: .venv/serve.stamp
	$(BIN)/python bench/bench.py $(BENCH)

clean:
	rm -rf .venv .venv-frameworks tests/js/node_modules tests/js/frameworks/node_modules bench/build

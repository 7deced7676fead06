# make demo    the whole story on embedded real data, in under a minute once set up
# make test    the suite
# make check   lint, format and types
# make docs    the pages of docs/commands, from the commands' own help
# make golden  golden files of the present version, once for each release (CONTRIBUTING.md)
# They set up .venv with uv; where the machine has no uv, it is installed into .venv first.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

INSTALL = uv=$$(command -v uv || echo "$(BIN)/uv"); \
	if [ ! -x "$(BIN)/python" ]; then \
		if command -v uv >/dev/null; then uv venv --quiet --python "$(PYTHON)" "$(VENV)"; \
		else "$(PYTHON)" -m venv "$(VENV)"; fi; \
	fi; \
	if [ ! -x "$$uv" ]; then "$(BIN)/python" -m pip install --quiet --disable-pip-version-check uv; fi; \
	"$$uv" pip install --quiet --compile-bytecode --python "$(BIN)/python" --constraint constraints.txt

.PHONY: demo test check docs golden clean

demo: $(VENV)/.demo-ready
	@"$(BIN)/modhub" demo
	@echo "The command is $(BIN)/modhub; to type modhub alone: . $(BIN)/activate"

test: $(VENV)/.test-ready
	@OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest $(PYTEST_ARGS)

check: $(VENV)/.test-ready
	@"$(BIN)/ruff" check
	@"$(BIN)/ruff" format --check
	@"$(BIN)/mypy"

docs: $(VENV)/.test-ready
	@"$(BIN)/python" -m modhub_cli.pages docs/commands

golden: $(VENV)/.test-ready
	@OMP_NUM_THREADS=1 "$(BIN)/python" -m tests.golden.make \
		"$$("$(BIN)/python" -c 'import modhub; print(modhub.__version__)')"

clean:
	rm -rf "$(VENV)" build dist demo-out

$(VENV)/.demo-ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) …"
	@set -e; $(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.test-ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) …"
	@set -e; $(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/.demo-ready

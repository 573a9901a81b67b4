# Two commands do all the set-up on a fresh Debian-like machine: `make demo` and `make test`.
.PHONY: env
VENV := .venv
PY := $(VENV)/bin/python

env: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install -q -e '.[dev]'
	touch $@

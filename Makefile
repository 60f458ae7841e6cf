# make app: make the environment, install what is pinned, serve on http://localhost:8501
# make test: the same, then every test.  STPYVISTA=no leaves the optional GPL viewer out.

VENV ?= .venv
PORT ?= 8501
STPYVISTA ?= yes
# The first of these that is Python 3.11 makes the environment, else the first that is newer; `make app PYTHON=...` chooses another.
PYTHON ?= $(shell for want in "== (3, 11)" "> (3, 11)"; do for p in python3.11 python3 python python3.12 python3.13; do \
	$$p -c "import sys; sys.exit(not sys.version_info[:2] $$want)" 2>/dev/null && echo $$p && exit; done; done)

BIN := $(VENV)/bin
APP_STAMP := $(VENV)/.installed-app-$(STPYVISTA)
DEV_STAMP := $(VENV)/.installed-dev
APP_REQUIREMENTS := $(if $(filter yes,$(STPYVISTA)),requirements-stpyvista.txt,requirements.txt)

.PHONY: app test test-fast lint clean
.DELETE_ON_ERROR:

app: $(APP_STAMP)
	$(BIN)/python -m streamlit run app.py --server.port $(PORT)

test: $(APP_STAMP) $(DEV_STAMP)
	$(BIN)/python -m tests.browser.find_browser --install
	$(BIN)/python -m pytest

test-fast: $(APP_STAMP) $(DEV_STAMP)
	$(BIN)/python -m pytest -m "not slow and not browser"

lint: $(DEV_STAMP)
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found. Install it, or say where: make app PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "This Python cannot make environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(APP_STAMP): requirements.txt requirements-stpyvista.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r $(APP_REQUIREMENTS)
	touch $@

$(DEV_STAMP): requirements.txt requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@

# Everything a newcomer or the CI runs. Needs Python 3.11 or newer with venv, and git. Packages come
# through pip, whose own settings (PIP_*, pip.conf) are honoured.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ARCH ?= sm121
BIN := .venv/bin
STAMP := .venv/.made-from

# The first Python that is new enough; `make PYTHON=/path/to/python3` names another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

.PHONY: help demo smoke-gpu test tools engine engine-stop bench lint types docs fresh check clean

help:
	@echo "make demo    build flashinfer for $(ARCH) and show what came out"
	@echo "make test    all tests"
	@echo "make engine  a container engine and a registry on loopback, for the tests; make engine-stop"
	@echo "make smoke-gpu ARCH=sm90   build for this machine's GPU, install, run the smoke checks"
	@echo "make check   lint, types, layers, generated files: all that CI runs beside the tests"
	@echo "make bench   time the commands beside their peers; writes docs/benchmarks.md"
	@echo "make docs    regenerate what is generated"
	@echo "make lint    ruff and import-linter · make types   mypy --strict"

# .venv: made from pyproject.toml and constraints.txt, again when one of them changes.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer on PATH; name one with make PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { rm -rf .venv; \
	  $(PYTHON) -m venv .venv || { rm -rf .venv; echo "make: $(PYTHON) cannot make a venv (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }; }
	@echo "setting up .venv from constraints.txt"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/stackpatch build flashinfer --arch $(ARCH) --out dist
	@echo
	@find dist -type f -size +0 | sort | xargs ls -lh | awk '{print $$5 "\t" $$9}'

# On a machine with a GPU: make smoke-gpu ARCH=sm120. PYTHON_GPU=… an environment of yours, WHEEL=… one
# that was built elsewhere, SMOKE=… options of `stackpatch smoke`.
smoke-gpu: $(STAMP)
	scripts/smoke-gpu --arch $(ARCH) $(if $(PYTHON_GPU),--python $(PYTHON_GPU)) \
	  $(if $(WHEEL),--wheel $(WHEEL)) $(if $(SMOKE),-- $(SMOKE))

# Two processes: the machines that we know have two cores. One file's tests stay together.
test: $(STAMP) tools
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Programs that tests run, each with its Debian package: Chromium looks at the matrix page, wiggle
# suggests for conflicts, sshd is a second machine, openssl makes certificates, g++ is nvcc's host
# compiler, strip, patch and diff are judges, jq runs the workflow of docs/upstream.md. As root on
# Debian or Ubuntu what is missing is installed; elsewhere the tests that need it fail and say so.
TOOLS := chromium=chromium chromedriver=chromium-driver wiggle=wiggle sshd=openssh-server \
  ssh-keygen=openssh-client openssl=openssl g++=g++ strip=binutils patch=patch diff=diffutils \
  jq=jq pgrep=procps skopeo=skopeo
tools:
	@missing=; for one in $(TOOLS); do \
	  PATH="$$PATH:/usr/sbin" command -v "$${one%%=*}" >/dev/null || missing="$$missing $${one#*=}"; done; \
	test -z "$$missing" || { \
	  test "$$(id -u)" -eq 0 && command -v apt-get >/dev/null || { echo "make: missing:$$missing; the tests that need them will fail" >&2; exit 0; }; \
	  echo "installing$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $$missing >/dev/null; }

# dockerd with BuildKit, buildx, buildah, skopeo, crane and a registry, below ~/.cache; as root on
# Debian. The tests start it by themselves; eval "$$(scripts/engine env)" lets a shell use it.
engine:
	scripts/engine start

engine-stop:
	scripts/engine stop

bench: $(STAMP)
	$(BIN)/python -m bench

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

# Each generated file, by the program that prints it; written only when that program succeeds.
docs: $(STAMP)
	@mkdir -p docs/schema build
	$(BIN)/python -m stackpatch.cli.reference > build/generated && mv build/generated docs/cli.md
	$(BIN)/python -m stackpatch.cli.recipe_reference > build/generated && mv build/generated docs/recipe-reference.md
	$(BIN)/python -m stackpatch.cli.cache_reference > build/generated && mv build/generated docs/caches.md
	$(BIN)/stackpatch schema > build/generated && mv build/generated docs/schema/recipe.schema.json
	$(BIN)/python -m stackpatch.cli.proven page > build/generated && mv build/generated docs/proven.md
	$(BIN)/python -m stackpatch.cli.proven readme README.md > build/generated && mv build/generated README.md

fresh: docs
	git diff --exit-code -- docs/cli.md docs/recipe-reference.md docs/caches.md docs/proven.md docs/schema README.md

check: lint types fresh

clean:
	rm -rf .venv dist build bench/work .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The two commands: `make up` boots the quickstart, `make test` passes the tests. Both do all the set-up themselves.
SHELL := /bin/bash
# Some images of CI set it: then each command compiles all that it loads, a tenth of a second each time.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
RUN := $(VENV)/bin/hikube-local
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PYTEST = $(SUDO) $(VENV)/bin/python -m tests.reaper $(VENV)/bin/python -m pytest
# Two files at a time, the long ones first (tests/conftest.py).
TWO := -n 2 --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.ready
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
# Every package from the registry in one version, with the hashes of its files: `make lock` writes it anew.
LOCK := .ci/requirements.txt
CLOUD_INIT := $(VENV)/cloud-init/.ready
SSHD := $(VENV)/sshd/.ready

PACKAGES := qemu-system-x86 qemu-utils libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients python3-libvirt python3-venv \
  dnsmasq-base slirp4netns nftables iproute2 util-linux openssh-client \
  tini mmdebstrap uidmap e2fsprogs grub-pc-bin grub-common ovmf swtpm swtpm-tools
TEST_PACKAGES := libxml2-utils xz-utils busybox-static libarchive-tools strace curl cpio dosfstools mtools fdisk grub-efi-amd64-bin rootlesskit

.PHONY: pictures release docs deb up down test test-all test-kvm test-host fuzz chaos bench lint wheel clean help

# How long `make fuzz` and `make chaos` go on, in seconds.
FOR := 600

help:
	@echo "make up        boot examples/quickstart.yaml and print how to log in"
	@echo "make down      remove that machine (its disks stay)"
	@echo "make test      install what is missing and pass the tests (a quarter of an hour under emulation on two idle cores)"
	@echo "make test-all  every test, the long sweeps and all boots too; ten minutes of fuzz and of chaos"
	@echo "make fuzz      hostile input into every reader, FOR=600 seconds; findings are kept and replayed"
	@echo "make chaos     kills, full disks and slow clocks under a random run of commands, FOR=600 seconds"
	@echo "make test-kvm  the tests that need hardware virtualisation"
	@echo "make test-host the cases on an emulated Debian 13 host with a working /dev/kvm (about an hour)"
	@echo "make bench     timings as ratios to the bare tools"
	@echo "make lint      ruff and mypy"
	@echo "make docs      the pages that are written from the program, and the site (build/site)"
	@echo "make pictures  the pictures of the page, from a real machine"
	@echo "make deb       a Debian package for this release of Debian (dist/)"
	@echo "make release   sdist, wheel, SBOM and digests (dist/)"
	@echo "make lock      the newest versions of the Python packages, with their hashes, into $(LOCK)"

$(STAMP): pyproject.toml Makefile $(LOCK)
	@echo "== system packages"
	@missing=; for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
	@echo "== Python environment in $(VENV)"
	@[ -x $(VENV)/bin/python ] || /usr/bin/python3 -m venv --system-site-packages $(VENV)
	@$(PIP) --require-hashes -r $(LOCK) 2> >(grep -v 'is ignored: it is neither' >&2)
	@$(PIP) --no-deps --no-build-isolation -e . 2> >(grep -v 'is ignored: it is neither' >&2)
	@$(RUN) version >/dev/null
	@touch $@

.PHONY: test-packages
test-packages: $(STAMP) $(CLOUD_INIT) $(SSHD)
	@missing=; for p in $(TEST_PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "== test packages:$$missing"; $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
	@which chromium >/dev/null || ! apt-cache show chromium >/dev/null 2>&1 || { echo "== a browser for the page's tests"; \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

# cloud-init's own code, to be compared with ours: unpacked, never installed (it would set up this host).
$(CLOUD_INIT): $(STAMP)
	@echo "== cloud-init's code, for comparison"
	@rm -rf $(VENV)/cloud-init.new && mkdir -p $(VENV)/cloud-init.new && cd $(VENV)/cloud-init.new && \
	{ apt-get download -qq cloud-init >/dev/null 2>&1 || { $(SUDO) apt-get update -qq && apt-get download -qq cloud-init >/dev/null 2>&1; } || true; } && \
	for deb in *.deb; do [ -e "$$deb" ] && dpkg-deb -x "$$deb" . ; done; true
	@rm -rf $(VENV)/cloud-init && mv $(VENV)/cloud-init.new $(VENV)/cloud-init && touch $(CLOUD_INIT)

# OpenSSH's server and the libraries that it alone needs, for a box that tests reach over ssh: unpacked, never installed
# (it would listen on this host).
$(SSHD): $(STAMP)
	@echo "== OpenSSH's server, unpacked"
	@rm -rf $(VENV)/sshd.new && mkdir -p $(VENV)/sshd.new && cd $(VENV)/sshd.new && \
	get() { apt-get download -qq openssh-server $$(apt-cache depends -i openssh-server | sed -n 's/^ *Depends: \(lib[^ ]*\)$$/\1/p' | \
	  while read p; do dpkg-query -W $$p >/dev/null 2>&1 || echo $$p; done) >/dev/null 2>&1; }; \
	{ get || { $(SUDO) apt-get update -qq && get; } || true; } && \
	for deb in *.deb; do [ -e "$$deb" ] && dpkg-deb -x "$$deb" . ; done; true
	@rm -rf $(VENV)/sshd && mv $(VENV)/sshd.new $(VENV)/sshd && touch $(SSHD)

up: $(STAMP)
	@$(RUN) up examples/quickstart.yaml
	@echo
	@echo "log in as the quickstart's own user:  $(RUN) ssh demo@quickstart"
	@echo "remove it again:                      make down"

down: $(STAMP)
	@$(RUN) down examples/quickstart.yaml

test: test-packages
	@$(PYTEST) $(TWO) -m "not full and not kvm" tests

test-all: test-packages
	@! which npm >/dev/null || $(VENV)/bin/python .ci/vendor.py --check
	@$(PYTEST) $(TWO) -m "not kvm" tests
	@$(SUDO) $(VENV)/bin/python -m tests.reaper $(VENV)/bin/python -m tests.nested --short
	@$(VENV)/bin/python -m tests.fuzz --seconds $(FOR) & fuzz=$$!; $(VENV)/bin/python -m tests.chaos --seconds $(FOR) && wait $$fuzz

fuzz: test-packages
	@$(VENV)/bin/python -m tests.fuzz --seconds $(FOR)

chaos: test-packages
	@$(VENV)/bin/python -m tests.chaos --seconds $(FOR)

test-kvm: test-packages
	@$(PYTEST) -m kvm tests

# A Debian 13 with a working /dev/kvm, emulated: `python -m tests.nested --short` is in test-all.
test-host: test-packages
	@$(SUDO) $(VENV)/bin/python -m tests.reaper $(VENV)/bin/python -m tests.nested

bench: test-packages
	@$(SUDO) $(VENV)/bin/python -m tests.bench

# An sdist, a wheel, an SBOM and their digests, from what is committed.
release: $(STAMP)
	@$(VENV)/bin/python .ci/release.py

# A Debian package for this release and architecture.
deb: $(STAMP)
	@which dh lintian >/dev/null || { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debhelper lintian >/dev/null; }
	@$(PIP) uv
	@$(VENV)/bin/python .ci/deb.py && lintian --fail-on error,warning dist/*.deb

# The pages of docs/ that are written from the program, then all of it as one site.
docs: $(STAMP)
	@$(VENV)/bin/python -m tests.pages commands > docs/commands.md
	@$(VENV)/bin/python -m tests.pages manifests > docs/manifests.md
	@$(VENV)/bin/python -m tests.pages differences > docs/differences.md
	@$(VENV)/bin/python -m tests.codes_page > docs/codes.md
	@$(VENV)/bin/hikube-local schema > docs/hikube.schema.json
	@[ -x $(VENV)/docs/bin/mkdocs ] || { /usr/bin/python3 -m venv $(VENV)/docs && \
	  $(VENV)/docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/docs-requirements.txt; }
	@NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/python .ci/site.py

# The pictures in docs/, from real machines: the page, a first session, the lab's report.
pictures: test-packages
	@mkdir -p docs/pictures
	@$(VENV)/bin/python -m tests.first_session docs/pictures
	@HIKUBE_LOCAL_SCREENSHOTS=$(CURDIR)/docs/pictures $(PYTEST) tests/e2e/test_serve.py

lint: $(STAMP)
	@$(VENV)/bin/ruff check hikube_local tests && $(VENV)/bin/ruff format --check hikube_local tests && $(VENV)/bin/mypy

.PHONY: lock
lock: $(STAMP)
	@$(PIP) uv && $(VENV)/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 --extra test --extra serve \
	  --no-header pyproject.toml -o $(LOCK)

wheel: $(STAMP)
	@$(VENV)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .

clean:
	rm -rf $(VENV) dist build

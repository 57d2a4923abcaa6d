# What a developer runs. `make test` is all that CI runs, too.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo test deps lint image unit fuzz build soak sbom release

# Reports what is running while a command prints nothing.
PROGRESS := scripts/progress.py

test: deps lint image unit fuzz

# Both directions on loopback, with throw-away keys; ends with Ctrl-C.
demo: build
	target/release/countersign demo

# Installs what the tests need and is not there yet; fast when nothing is missing.
deps:
	$(PROGRESS) deps scripts/test-deps.sh

lint:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	$(PROGRESS) clippy cargo clippy --workspace --all-targets --locked -- -D warnings
	$(PROGRESS) clippy cargo clippy -p countersign --lib --bins --no-default-features --locked -- -D warnings
	.testbed/venv/bin/shellcheck --severity=warning scripts/*.sh .ci/run
	.testbed/venv/bin/python scripts/check-dependencies.py
	cargo check --locked -p countersign-protocol --no-default-features
	RUSTDOCFLAGS='-D warnings' $(PROGRESS) doc cargo doc --workspace --no-deps --locked

# The images that `unit` runs in a pod, without a network: target/image/static.tar and redirect.tar.
image:
	$(PROGRESS) image scripts/image.sh static
	$(PROGRESS) image scripts/image.sh redirect

# Tests wait for processes and time-outs more than they compute, so more of them run than there are cores.
unit:
	RUST_TEST_THREADS=4 $(PROGRESS) unit cargo test --workspace --locked

# Ten seconds of each target from the same start; what is found is left in fuzz/artifacts. To look further,
# run scripts/fuzz.sh.
fuzz:
	SEED=1 $(PROGRESS) fuzz scripts/fuzz.sh 10

# What is in the binaries, as CycloneDX: target/sbom.
sbom:
	mkdir -p target/sbom
	scripts/sbom.py static target/sbom/static.cdx.json
	scripts/sbom.py dynamic target/sbom/dynamic.cdx.json

# dist/, packed twice and compared; see docs/RELEASING.md.
release:
	scripts/release-checks.sh
	scripts/release.sh --again

build:
	$(PROGRESS) build cargo build --release --locked

# Half an hour of mixed faults; not part of `test`.
soak: build
	scripts/soak.py 30 target/release/countersign

# What a developer runs. `make test` is all that CI runs, too.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: test deps lint image unit fuzz build soak sbom release

test: deps lint image unit fuzz

# Installs what the tests need and is not there yet; fast when nothing is missing.
deps:
	scripts/test-deps.sh

lint:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p countersign --all-targets --no-default-features --locked -- -D warnings
	.testbed/venv/bin/shellcheck --severity=warning scripts/*.sh .ci/run
	.testbed/bin/cargo-deny --log-level error check bans licenses sources
	cargo check --locked -p countersign-protocol --no-default-features
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

# The images that `unit` runs in a pod, without a network: target/image/static.tar and redirect.tar.
image:
	scripts/image.sh static
	scripts/image.sh redirect

unit:
	cargo test --workspace --locked
	cargo test -p countersign --no-default-features --locked --lib keys::token

# Ten seconds of each target from the same start; what is found is left in fuzz/artifacts. To look further,
# run scripts/fuzz.sh.
fuzz:
	SEED=1 scripts/fuzz.sh 10

# What is in the binaries, as CycloneDX: target/sbom.
sbom:
	mkdir -p target/sbom
	scripts/sbom.py static target/sbom/static.cdx.json
	scripts/sbom.py dynamic target/sbom/dynamic.cdx.json

# dist/, packed twice and compared; see docs/RELEASING.md.
release:
	scripts/release.sh --again

build:
	cargo build --release --locked

# Half an hour of mixed faults; not part of `test`.
soak: build
	scripts/soak.py 30

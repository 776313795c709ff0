.PHONY: test
test:
	cargo test --workspace --all-features

# Recipes; each is one line that can be typed without `just`, too.

# Everything that CI checks
ci:
    bash .ci/run

# The tests: unit, whole gateway, documentation
test:
    cargo test

# A gateway, two workers and three modules to try
demo:
    cargo run --release -- demo

# Build the guests again into guests/dist
guests:
    guests/build.sh

# The cost of a guest call
bench:
    cargo bench --bench guest_call

# Side by side with other proxies that are installed
compare *ARGS:
    python3 benches/compare.py {{ARGS}}

# Instructions of a request and of a guest call, against what is expected
instructions:
    cargo build --release && cargo bench --bench guest_call --no-run && benches/instructions.py

# Build the image and run it once, without a container engine
image:
    bash tests/image.sh

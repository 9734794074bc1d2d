# Build:  docker build -t smg .
# Run:    docker run --rm -p 3000:3000 -e SMG_PORT=3000 smg --worker-urls=http://10.0.0.1:8000
# Modules and an admin key:
#         docker run --rm -p 3000:3000 -e SMG_PORT=3000 -v /srv/modules:/modules:ro -e SMG_ADMIN_KEY=... smg \
#             --enable-wasm --wasm-module-dir=/modules --worker-urls=http://10.0.0.1:8000
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src src
COPY benches benches
COPY wit wit
COPY guests/dist guests/dist
RUN cargo build --release --locked --bin smg

FROM debian:bookworm-slim
RUN useradd --no-create-home --no-log-init --shell /usr/sbin/nologin --uid 10001 smg
# What https workers are verified with, unless --ca-cert-paths names other authorities: the slim image has none.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/target/release/smg /usr/local/bin/smg
USER 10001
ENV SMG_PORT=30000
EXPOSE 30000
STOPSIGNAL SIGTERM
# The binary asks itself, on the port it was told through SMG_PORT, by TLS if SMG_TLS_CERT_PATH is set. With --port,
# --tls-cert-path or a configuration file, give the check --port and --tls.
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["smg", "health"]
ENTRYPOINT ["smg"]

# syntax=docker/dockerfile:1

# Build: `docker build -t tidings .`
# Run:   `docker run -p 8080:8080 -e DATABASE_URL=… -e TIDINGS_JWT_SECRET_FILE=/run/secrets/jwt tidings`

FROM rust:1-bookworm AS builder
WORKDIR /tidings
# The dependencies are built in a layer of their own, which stays until the lock file changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo '' > src/lib.rs && echo 'fn main() {}' > src/main.rs \
    && cargo build --locked --release \
    && rm -r src
COPY src src
COPY sql sql
# Cargo judges by times, and the empty sources above are newer than a checkout.
RUN touch src/lib.rs src/main.rs && cargo build --locked --release --bin tidings

# glibc, root certificates and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=builder /tidings/target/release/tidings /usr/local/bin/tidings
# In a container the whole world is its own network; the operations listener stays on loopback.
ENV TIDINGS_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["/usr/local/bin/tidings", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tidings"]
CMD ["serve"]

# syntax=docker/dockerfile:1

# Build: docker build -t tidings .
# Run:   docker run -p 8080:8080 -e DATABASE_URL=… -e TIDINGS_JWT_SECRET=… tidings

FROM rust:1-bookworm AS builder
WORKDIR /tidings
COPY . .
# What was downloaded and built stays in the builder's caches, so that a change of the source
# builds tidings alone; the binary is copied out, since caches are no part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/tidings/target \
    cargo build --locked --release --bin tidings \
    && cp target/release/tidings /usr/local/bin/tidings

# glibc, root certificates and an unprivileged user: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=builder /usr/local/bin/tidings /usr/local/bin/tidings
# A container's network is its own; the operations listener stays on loopback all the same, where
# the health check below finds it.
ENV TIDINGS_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["/usr/local/bin/tidings", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tidings"]
CMD ["serve"]

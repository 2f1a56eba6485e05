# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep what was compiled between builds; the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --package gateway --bin tidings \
 && install -D --strip target/release/tidings /out/tidings

FROM debian:bookworm-slim
# For sslmode=verify-full.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tidings
COPY --from=build /out/tidings /usr/local/bin/tidings
USER tidings
ENV TIDINGS_LISTEN=0.0.0.0:4000 \
    TIDINGS_LOG_FORMAT=json
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["tidings", "health"]
# `docker stop` sends SIGTERM, which drains; give it longer than the setting `drain`.
ENTRYPOINT ["tidings"]
CMD ["serve"]

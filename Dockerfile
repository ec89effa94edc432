# Holdpoint in a container: built in one stage, run in another without compiler, shell or root.
# It is built where a container engine runs; no check of this repository builds it. See README.md, "Container".

FROM docker.io/library/rust:1.95-bookworm AS build
# aws-lc-rs compiles its C code with cmake and a C compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake clang \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY policies ./policies
COPY catalog ./catalog
# glibc is linked in. That needs a target by name: what runs while building stays dynamic.
RUN target="$(rustc --print host-tuple)" \
    && RUSTFLAGS="-C target-feature=+crt-static" \
       cargo build --release --locked --bin holdpoint --target "$target" \
    && cp "target/$target/release/holdpoint" /holdpoint \
    && mkdir -p /empty/state

# CA certificates, /etc/passwd and /tmp, and nothing that runs: no shell, no libraries.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /holdpoint /usr/local/bin/holdpoint
COPY --from=build --chown=65532:65532 /empty/state /var/lib/holdpoint
COPY --from=build /build/policies /usr/share/holdpoint/policies
USER 65532:65532
ENV HOLDPOINT_CONFIG=/etc/holdpoint/holdpoint.yaml
# Agents, and health with metrics. Configuration, certificates and state are mounted: they are no part of the image.
EXPOSE 8443 8481
VOLUME ["/var/lib/holdpoint"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/holdpoint"]
CMD ["serve"]

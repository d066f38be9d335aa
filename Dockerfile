# The image of every part: `tidegate operator`, `router`, `replica`, `node-agent`, and `tidegate-node-agent` for the nodes of a cluster.
# `tests/src/kubelet/image.rs` makes the same files into an image where no image builder runs.
FROM rust:1.95-bookworm AS build
WORKDIR /tidegate
COPY . .
RUN cargo build --release --workspace --bins

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /tidegate/target/release/tidegate /tidegate/target/release/tidegate-node-agent /usr/bin/
USER 65532:65532
ENTRYPOINT ["/usr/bin/tidegate"]

# The server as an image for GPU nodes: one binary that also runs where there is no GPU. Built by
# `docker build -t structattn .`; the driver is brought in by NVIDIA's container toolkit at start.
# hadolint global ignore=DL3008
# (DL3008: Debian's packages are pinned by the release that the tag below names.)
ARG DEBIAN=debian:12-slim

# Compiles everything with what deploy/setup.sh installs: Debian's compilers and libraries, LibTorch,
# CUDA's libraries and nvcc from their wheels.
FROM ${DEBIAN} AS builder
WORKDIR /src
ENV STRUCTATTN_CACHE=/cache
# First what changes seldom, so that editing a source file downloads nothing again.
COPY deploy/setup.sh deploy/unpack_wheel.py deploy/
COPY deploy/requirements deploy/requirements
COPY tests/requirements.txt tests/
RUN deploy/setup.sh --gpu
COPY CMakeLists.txt CMakePresets.json LICENSE ./
COPY deploy/cmake deploy/cmake
COPY proto proto
COPY kernels kernels
COPY server server
COPY client client
RUN cmake --preset release -DSTRUCTATTN_TESTS=OFF \
    && cmake --build --preset release \
    && cmake --install build/release --prefix /opt/structattn --strip

# Runs it: no compiler, no Python, no shell needed by the server.
FROM ${DEBIAN} AS runtime
LABEL org.opencontainers.image.title="structattn" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       libabsl20220623 libgrpc++1.51 libprotobuf32 libspdlog1.10 libssl3 libhwy1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home structattn
COPY --from=builder /opt/structattn /opt/structattn
ENV PATH=/opt/structattn/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 50051
# The platform that runs the container asks for health over gRPC (grpc.health.v1).
ENTRYPOINT ["structattn-server"]
CMD ["--help"]

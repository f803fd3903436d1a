# The server. Build: docker build -t asymserve .   (BASE: any Debian 12 image)
# Run: docker run -p 50051:50051 -v /path/to/models:/models:ro asymserve --model /models/FILE.gguf
# With the CUDA backend: --build-arg BUILD_BASE=IMAGE of Debian 12 with the CUDA toolkit, 12.0 or later,
# in /usr/local/cuda; the image that is made needs no more of CUDA than the host's driver. Not tried:
# no such IMAGE was at hand; and the image's list of what it is made of leaves out the CUDA runtime.
#
# A release says in the image's labels what it is and what it is built on; a label not given is empty:
#   --build-arg VERSION=0.1.0                       that of the sources, or the build fails
#   --build-arg REVISION="$(git rev-parse HEAD)"    of a tree without changes
#   --build-arg BASE_DIGEST=sha256:...              of BASE; no other one is taken then
ARG BASE=docker.io/library/debian:12
ARG BASE_DIGEST=
ARG BUILD_BASE=${BASE}${BASE_DIGEST:+@}${BASE_DIGEST}

FROM ${BUILD_BASE} AS build
WORKDIR /src
COPY tools/lib.sh tools/install-deps tools/runtime-packages tools/sbom tools/ptxas-log tools/
RUN tools/install-deps build
COPY CMakeLists.txt CMakePresets.json ./
COPY proto proto
COPY config config
COPY engine engine
COPY server server
COPY tools/client tools/client
RUN cmake --preset release -DASYMSERVE_TESTS=OFF -DASYMSERVE_BENCH=OFF --log-level=WARNING \
 && cmake --build build/release --target asymserve asymserve-client \
 && install --strip -D -t /image/usr/local/bin build/release/bin/asymserve build/release/bin/asymserve-client \
 && cuda=build/release/lib/asymserve/libasymserve_cuda.so \
 && if [ -e $cuda ]; then install --strip -D -t /image/usr/local/lib/asymserve $cuda; fi \
 && install -D -t /image/share tools/sbom \
 && tools/runtime-packages $(find /image/usr/local -type f) > /image/share/runtime-packages \
 && dpkg-query -W -f "$(tools/sbom --format)" libcli11-dev nlohmann-json3-dev libspdlog-dev > /image/share/compiled-in \
 && sed -n 's/.*project(.* VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt > /image/share/version

FROM ${BASE}${BASE_DIGEST:+@}${BASE_DIGEST}
ARG VERSION=
COPY --from=build /image/share /usr/local/share/asymserve
RUN { test -z "$VERSION" || grep -Fx "$VERSION" /usr/local/share/asymserve/version; } \
 && apt-get -q update \
 && xargs apt-get -q -y install --no-install-recommends < /usr/local/share/asymserve/runtime-packages \
 && rm -rf /var/lib/apt/lists/* \
 && cd /usr/local/share/asymserve \
 && dpkg-query -W -f "$(./sbom --format)" | cat - compiled-in \
    | ./sbom asymserve "$(cat version)" > sbom.cdx.json && test -s sbom.cdx.json \
 && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin asymserve
COPY --from=build /image/usr/local /usr/local
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
# insecure: a container is reached by what its network lets in. With server.tls and a way to know the
# callers add --set server.insecure=false.
ENTRYPOINT ["asymserve", "serve", "--set", "server.address=0.0.0.0:50051", "--set", "server.insecure=true", "--set", "metrics.address=0.0.0.0:9464"]

# Last, so that another revision changes no layer.
ARG BASE
ARG BASE_DIGEST
ARG REVISION=
LABEL org.opencontainers.image.title="AsymServe" \
      org.opencontainers.image.description="gRPC inference server for large language models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}"

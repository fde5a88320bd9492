# Jettison whole, in the very image of Triton that will serve: what it builds there fits the TensorRT there.
#   docker build -f deploy/docker/Dockerfile.builder -t jettison-builder .
# For a build that can be repeated give the base by digest: --build-arg BASE_IMAGE=...@sha256:...
ARG BASE_IMAGE=nvcr.io/nvidia/tritonserver:26.07-py3

FROM ${BASE_IMAGE} AS build
USER 0
WORKDIR /build
COPY deploy/docker/builder.txt deploy/docker/sbom.txt deploy/docker/backend.txt ./
RUN python3 -m venv --without-pip tools && python3 -m venv --without-pip --system-site-packages /opt/jettison \
    && python3 -m pip --python /opt/jettison/bin/python install --ignore-installed \
        --no-cache-dir --no-compile --require-hashes --only-binary :all: --requirement builder.txt \
    && python3 -m pip --python tools/bin/python install --no-cache-dir --require-hashes --only-binary :all: \
        --requirement sbom.txt --requirement backend.txt
COPY pyproject.toml README.md LICENSE ./
COPY plugin plugin
RUN python3 -m pip --python tools/bin/python wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels . \
    && python3 -m pip --python /opt/jettison/bin/python install --no-cache-dir --no-compile --no-deps wheels/*.whl \
    && tools/bin/cyclonedx-py environment /opt/jettison/bin/python \
        --pyproject pyproject.toml --output-reproducible --output-format JSON \
        --output-file /opt/jettison/sbom.cdx.json
USER 1000:1000

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="jettison-builder" \
      org.opencontainers.image.description="Jettison in the Triton image whose engines it builds" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/jettison /opt/jettison
ENV PATH=/opt/jettison/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000
ENTRYPOINT ["jettison"]

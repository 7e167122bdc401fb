# The worker: Kafka in, TensorFlow Serving over gRPC, Kafka out. Without TensorFlow, which only export and serve need.
#
#   docker build -t rexstream .
#   docker run --read-only -v ./config.yaml:/etc/rexstream/config.yaml:ro -v ./models:/models:ro -p 9464:9464 rexstream
#
# Port 9464 serves /metrics, /livez, /readyz and /status when observability.http is 0.0.0.0:9464; the default address is
# loopback, which nothing outside the container reaches. Nothing is written to disk.

# A tag can be moved: --build-arg BASE=python:3.12-slim@sha256:… builds on what was looked at.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Every package with the hashes of its wheels (make lock): nothing else is installed, whatever the index has by now. The
# build backend too, so no isolated build environment fetches another one.
COPY requirements.lock requirements-otel.lock requirements-build.lock ./
# --build-arg LOCK=requirements-otel.lock: with OpenTelemetry, for observability.tracing (8 packages, 7 MB).
ARG LOCK=requirements.lock
RUN pip install --require-hashes --only-binary :all: -r requirements-build.lock \
    && python -m venv --without-pip /opt/rexstream \
    && pip --python /opt/rexstream/bin/python install --require-hashes --only-binary :all: -r ${LOCK}
COPY pyproject.toml README.md LICENSE ./
COPY consumer consumer
COPY schemas schemas
COPY deploy/demo-model deploy/demo-model
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/rexstream/bin/python install --no-deps /wheels/*.whl

FROM ${BASE}
COPY --from=build /opt/rexstream /opt/rexstream
# Bytecode was compiled at install time; at run time the root file system may be read-only.
ENV PATH=/opt/rexstream/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
EXPOSE 9464
# The worker drains on SIGTERM: give it longer than delivery.grace_seconds before SIGKILL.
STOPSIGNAL SIGTERM
# For engines that look (Kubernetes has probes of its own). It fails for a thread that hangs, not for a broker or a model.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=6 \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 9464, timeout=4); c.request('GET', '/livez'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["rexstream"]
CMD ["run", "--config", "/etc/rexstream/config.yaml"]

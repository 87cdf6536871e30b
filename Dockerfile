# The exporter, and the demo's embedded runtime. It needs no shell script and downloads nothing at run time.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Without pip, which stays in this stage.
RUN python -m venv --without-pip /opt/spinner-exporter
# Install the locked dependencies first, because they change less often than the code. The locks have hashes of all files.
COPY requirements-image.lock requirements-build.lock ./
RUN pip install --require-hashes -r requirements-build.lock \
    && pip --python /opt/spinner-exporter/bin/python install --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
COPY alerts alerts
COPY dashboards/dist dashboards/dist
COPY deploy/grafana deploy/grafana
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/spinner-exporter/bin/python install --no-deps /wheels/*.whl

FROM python:3.13-slim-bookworm
# `make image` takes it from exporter/__init__.py.
ARG VERSION=unknown
LABEL org.opencontainers.image.title="spinner-exporter" \
      org.opencontainers.image.description="Prometheus exporter for spinner runs: progress, duration, failed records and stalls" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/spinner-exporter /opt/spinner-exporter
ENV PATH=/opt/spinner-exporter/bin:$PATH PYTHONUNBUFFERED=1
# Without pip, nothing in a container can install packages; its bytes stay in the layer of the base image. The import writes
# the bytecode of the modules of Python that are used: the base image has none, and the container's file system is read-only,
# so that each start and each health check would compile them again.
RUN rm -rf /usr/local/lib/python3.13/site-packages /usr/local/lib/python3.13/ensurepip /usr/local/bin/pip* \
    && python -c "import exporter.cli, exporter.demo.pages, exporter.healthcheck, exporter.simulator, ssl"
ENV PYTHONDONTWRITEBYTECODE=1
# The user `nobody`, as in Prometheus's images. It owns only the folder for storage.path.
RUN install -d -m 0700 -o 65534 -g 65534 /var/lib/spinner-exporter
USER 65534:65534
EXPOSE 10095
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s CMD ["spinner-exporter", "healthcheck"]
ENTRYPOINT ["spinner-exporter"]
CMD ["serve", "--config.file=/etc/spinner-exporter/exporter.yml"]

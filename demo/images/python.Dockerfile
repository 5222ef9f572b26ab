# Debian's Python 3.11, for machines that reach no registry: stands in for the public `python:3.11-slim-bookworm` as the base of our
# own images.
ARG BASE
FROM ${BASE}
RUN apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && apt-get clean
CMD ["python3"]

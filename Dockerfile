# The images of prep-ops, one stage each:
#   ops   exporter, remediator, switch and prepctl: what a production host runs
#   demo  the demo platform's services: the same, and Stripe's SDK
# `scripts/images` builds them. It first puts the pinned, hash-checked wheels of requirements.lock into build/images/, so that the
# build itself needs no network, and passes the base: the public image below, or prep-local/python where no registry is reachable.
ARG BASE=python:3.11-slim-bookworm

# pip stays in an environment of its own and never reaches an image that ships.
FROM ${BASE} AS build
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/prep
COPY build/images/ops /wheels
RUN /opt/pip/bin/pip --python /opt/prep/bin/python install --quiet --no-index --no-deps --no-cache-dir /wheels/*.whl
COPY build/images/demo /wheels-demo
RUN /opt/pip/bin/pip --python /opt/prep/bin/python install --quiet --no-index --no-deps --no-cache-dir --target /opt/demo /wheels-demo/*.whl
# Last, since it changes most.
COPY build/images/project /project
RUN /opt/pip/bin/pip --python /opt/prep/bin/python install --quiet --no-index --no-deps --no-cache-dir /project/*.whl

FROM ${BASE} AS ops
# A new volume takes over the owner of the folder that it is mounted on; the services run as this user and may write nothing else.
RUN mkdir -p /var/lib/prep-exporter /var/lib/prep-remediator /var/lib/prep-switch /etc/prep \
    && chown 65532:65532 /var/lib/prep-exporter /var/lib/prep-remediator /var/lib/prep-switch
COPY --from=build /opt/prep /opt/prep
ENV PATH=/opt/prep/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
CMD ["prep-exporter", "--config.file=/etc/prep/exporter.yml"]

FROM ops AS demo
COPY --from=build /opt/demo /opt/demo
ENV PYTHONPATH=/opt/demo
CMD ["python", "-m", "demo.load"]

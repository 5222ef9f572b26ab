# A stateful stand-in for Stripe's API (localstripe, GPL-3.0-or-later, started by demo/stripe_double.py): for the demo and the tests
# only, never part of what ships. scripts/images puts its pinned wheels into build/images/localstripe first.
ARG BASE
FROM ${BASE} AS build
COPY build/images/localstripe /wheels
RUN python3 -m venv /opt/localstripe \
    && /opt/localstripe/bin/pip install --quiet --no-index --no-deps --no-cache-dir /wheels/*.whl

FROM ${BASE}
COPY --from=build /opt/localstripe /opt/localstripe
COPY demo/stripe_double.py /opt/localstripe/stripe_double.py
ENV PATH=/opt/localstripe/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8420
ENTRYPOINT ["python", "/opt/localstripe/stripe_double.py"]
CMD ["--port", "8420"]

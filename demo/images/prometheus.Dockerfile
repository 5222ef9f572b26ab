# Prometheus from Debian's packages, for machines that reach no registry: the same user, data folder and entrypoint style as the
# public image (arguments only in `command`); wget is there for the health check, as it is in the public one.
ARG BASE
FROM ${BASE}
RUN apt-get install -y --no-install-recommends prometheus wget \
    && apt-get clean \
    && rm -rf /etc/prometheus/* \
    && install -d -o nobody -g nogroup -m 0755 /prometheus
WORKDIR /prometheus
VOLUME /prometheus
USER nobody
EXPOSE 9090
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]

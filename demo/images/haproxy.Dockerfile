# HAProxy from Debian's packages, for machines that reach no registry. docker-compose.yml names the user that it runs as.
ARG BASE
FROM ${BASE}
RUN apt-get install -y --no-install-recommends haproxy \
    && apt-get clean
USER haproxy
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]

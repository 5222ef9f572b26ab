# PostgreSQL 15 from Debian's packages, for machines that reach no registry. It behaves like the public image `postgres:15` in what
# docker-compose.yml uses: the same user id, data folder, environment variables, init folder and entrypoint.
ARG BASE
FROM ${BASE}
RUN groupadd --system --gid 999 postgres \
    && useradd --system --uid 999 --gid postgres --home-dir /var/lib/postgresql --create-home --shell /bin/bash postgres \
    && apt-get install -y --no-install-recommends postgresql-common \
    && sed -ri 's/^#?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && apt-get install -y --no-install-recommends postgresql-15 \
    && sed -ri "s/^#?(listen_addresses) *=.*/\1 = '*'/" /usr/share/postgresql/15/postgresql.conf.sample \
    && apt-get clean \
    && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data \
    && install -d -o postgres -g postgres -m 0775 /var/run/postgresql \
    && install -d -m 0755 /docker-entrypoint-initdb.d
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN chmod 0755 /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PG_MAJOR=15 \
    PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
# "Fast" shutdown: PostgreSQL's own TERM waits for every client to leave.
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]

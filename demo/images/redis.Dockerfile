# Redis from Debian's packages, for machines that reach no registry: the same user id and data folder as the public image.
ARG BASE
FROM ${BASE}
RUN groupadd --system --gid 999 redis \
    && useradd --system --uid 999 --gid redis --home-dir /data --no-create-home --shell /usr/sbin/nologin redis \
    && apt-get install -y --no-install-recommends redis-server redis-tools \
    && apt-get clean \
    && install -d -o redis -g redis -m 0755 /data
WORKDIR /data
VOLUME /data
USER redis
EXPOSE 6379
CMD ["redis-server"]

"""Everything a test may start, under one name: `from tests.support.servers import PostgresServer, Run`.

Each is started on a free loopback port with a readiness check and a deadline, lies below the run's folder, and is ended
with the run, or by the next run when this one was killed. They are made from the `run` fixture or by their own fixtures
(`tests/conftest.py`).
"""

from __future__ import annotations

from tests.support.daemon import Daemon, ServerFailed
from tests.support.docker_engine import OBEDIENT, RUN_LABEL, STUBBORN, DockerEngine, ServiceContainer
from tests.support.haproxy import Haproxy
from tests.support.http_stubs import Answer, Request, StubMetrics, StubServer, WebhookRecorder
from tests.support.postgres import PASSWORD, SUPERUSER, Database, PostgresServer, Session, SqlFailed
from tests.support.prometheus import AlertmanagerServer, PrometheusServer, Sample, scrape_config
from tests.support.redis import RedisServer
from tests.support.run import MissingProgram, Run, program
from tests.support.s3 import S3Server
from tests.support.service import Service
from tests.support.tcp_proxy import Hold, TcpProxy
from tests.support.waiting import NotInTime, Reply, fetch, free_port, listens, post_json, wait_until

__all__ = [
    "OBEDIENT",
    "PASSWORD",
    "RUN_LABEL",
    "STUBBORN",
    "SUPERUSER",
    "AlertmanagerServer",
    "Answer",
    "Daemon",
    "Database",
    "DockerEngine",
    "Haproxy",
    "Hold",
    "MissingProgram",
    "NotInTime",
    "PostgresServer",
    "PrometheusServer",
    "RedisServer",
    "Reply",
    "Request",
    "Run",
    "S3Server",
    "Sample",
    "ServerFailed",
    "Service",
    "ServiceContainer",
    "Session",
    "SqlFailed",
    "StubMetrics",
    "StubServer",
    "TcpProxy",
    "WebhookRecorder",
    "fetch",
    "free_port",
    "listens",
    "post_json",
    "program",
    "scrape_config",
    "wait_until",
]

"""Every drill there is, by name."""

from __future__ import annotations

from demo.drills import (
    compliance_engine_slow,
    container_down,
    container_unhealthy,
    disk_space_full,
    high_database_cpu,
    payment_failures_spike,
    redis_connection_failures,
    replica_not_streaming,
)
from demo.drills.base import Drill

TOUR = (high_database_cpu.HEALS, compliance_engine_slow.HEALS)
"""What `make demo` shows, one after the other on one stack."""
ALL: dict[str, Drill] = {
    drill.name: drill
    for module in (
        compliance_engine_slow,
        container_down,
        container_unhealthy,
        disk_space_full,
        high_database_cpu,
        payment_failures_spike,
        redis_connection_failures,
        replica_not_streaming,
    )
    for drill in module.DRILLS
}
"""Each needs a stack of its own: limits and cooldowns are durable, and one would be refused for the sake of another."""

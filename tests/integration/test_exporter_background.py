"""The background collectors together, as the exporter builds them out of one file, up to the page that is scraped."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import yaml

from exporter.build import build
from exporter.exposition import render
from exporter.negotiation import negotiate
from exporter.settings import parse
from tests.integration.exporter_parts import values
from tests.support.servers import Answer, Request, StubServer, free_port, program

STATUS = b'{"status": {"indicator": "major"}}'


class Both(StubServer):
    """A service with a health check and a status page."""

    def answer(self, request: Request) -> Answer:
        return Answer(200, STATUS if request.path.endswith("status.json") else b"ok")


def configuration(stub: StubServer, folder: Path) -> str:
    """Healthy and ill targets of every kind."""
    nobody = free_port()
    good = {"path": str(folder), "files": "*.dump"}
    return yaml.safe_dump(
        {
            "collectors": {
                "probes": {
                    "interval": "1s",
                    "targets": {
                        "web": {"url": f"{stub.url}/health", "timeout": "300ms"},
                        "down": {"url": f"tcp://127.0.0.1:{nobody}", "timeout": "300ms"},
                    },
                },
                "vendors": {
                    "interval": "1s",
                    "pages": {
                        "stripe": {"url": stub.url},
                        "other": {"url": f"http://127.0.0.1:{nobody}", "timeout": "1s"},
                    },
                },
                "backups": {
                    "interval": "1s",
                    "directories": {"good": good, "gone": {**good, "path": str(folder / "none")}},
                },
                "slo": {"objectives": {"payments": {"ratio": 0.995}}},
            }
        }
    )


async def test_ill_targets_stay_told_and_well_ones_fresh(tmp_path: Path) -> None:
    """Over many intervals: every series of what is well, the ill ones' own words, success 0 of their collector, and a
    page that promtool has nothing against."""
    backup = tmp_path / "1.dump"
    backup.write_bytes(b"x" * 9)
    os.utime(backup, (time.time() - 3600,) * 2)
    with Both() as stub:
        async with build(parse(configuration(stub, tmp_path), "exporter.yml")) as engine:
            end = time.monotonic() + 10
            while not engine.ready:
                assert time.monotonic() < end
                await asyncio.sleep(0.02)
            await asyncio.sleep(4)  # longer than three intervals: what is still shown is new
            results = await engine.scrape(5)
    success = {result.collector: result.success for result in results}
    assert success == {"slo": True, "probes": True, "vendors": False, "backups": False}
    found = values(sample for result in results for sample in result.samples)
    assert (found["probe_up", "web"], found["probe_up", "down"]) == (1, 0)
    assert found["probe_duration_seconds", "web"] >= 4
    assert (found["vendor_status", "stripe", "major"], found["vendor_page_up", "other"]) == (1, 0)
    assert (found["backup_size_bytes", "good"], found["backup_listed", "gone"]) == (9, 0)
    assert found["slo_objective_ratio", "payments"] == 0.995
    page = render((sample for result in results for sample in result.samples), negotiate(""), zipped=False)
    done = subprocess.run([program("promtool"), "check", "metrics"], input=page, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

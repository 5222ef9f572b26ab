"""What docker-compose.yml promises of every service, and what it shares with the scripts that feed it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DEFAULT = re.compile(r"\$\{(?P<name>PREP_\w+):-(?P<default>[^}]*)\}")

each = pytest.mark.parametrize("name", sorted(SERVICES))


def default_image(name: str) -> tuple[str, str]:
    """The variable of a service's image, and the image that is taken when it is not set."""
    found = DEFAULT.fullmatch(SERVICES[name]["image"])
    assert found is not None, f"{name}: its image is no variable with a default"
    return found["name"], found["default"]


@each
def test_every_service_is_bounded_and_watched(name: str) -> None:
    """CPU, memory and processes have a limit, the log rotates, the health is asked, and an end is followed by a start."""
    service = SERVICES[name]
    assert {"cpus", "mem_limit", "pids_limit", "healthcheck"} <= set(service)
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"] == "unless-stopped"


@each
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    """No capability, no new privileges, a root file system that it cannot write, a user that is not root."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not re.match(r"(0|root)(:|$)", str(service["user"]))
    assert "privileged" not in service


def test_only_the_gate_reaches_the_engine() -> None:
    """One service mounts the socket, and it stands in a network that only exporter and remediator share."""
    assert [name for name, item in SERVICES.items() if "docker.sock" in str(item.get("volumes"))] == ["docker-gate"]
    assert {name for name, item in SERVICES.items() if "gate" in item["networks"]} == {
        "docker-gate",
        "exporter",
        "remediator",
    }
    assert SERVICES["docker-gate"]["networks"] == ["gate"]
    assert COMPOSE["networks"]["gate"]["internal"] is True


def test_ports_are_published_on_this_machine_only() -> None:
    """Each by a variable."""
    ports = [port for item in SERVICES.values() for port in item.get("ports", ())]
    assert ports
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:\$\{PREP_PORT_\w+:-\d+\}:\d+", port), port


def test_what_may_be_restarted_has_opted_in() -> None:
    """The label stands at the demo's services that the handbook restarts; never at a primary, nor at what we stand on."""
    labelled = {name for name, item in SERVICES.items() if "prep-ops.remediate" in item.get("labels", {})}
    assert labelled == {"python-compliance", "payments", "redis", "postgres-replica"}


def test_public_images_are_pinned_alike() -> None:
    """The defaults of the compose file are what scripts/images fetches; none of them floats."""
    script = (ROOT / "scripts" / "images").read_text()
    fetched = dict(re.findall(r"^PUBLIC_(\w+)=(\S+)$", script, re.MULTILINE))
    ours = {"PREP_IMAGE_OPS", "PREP_IMAGE_DEMO", "PREP_IMAGE_STRIPE"}
    for name in SERVICES:
        variable, image = default_image(name)
        if variable not in ours:
            assert image == fetched[variable.removeprefix("PREP_IMAGE_")], name
        assert re.search(r":v?\d+(\.\d+)*", image), f"{image} is not pinned"


def test_every_secret_is_made_and_is_a_file() -> None:
    """scripts/setup makes each secret that a service asks for; none comes by an environment variable."""
    made = (ROOT / "scripts" / "setup").read_text()
    for name, source in COMPOSE["secrets"].items():
        assert source["file"].endswith(f"/{name}")
        assert re.search(rf"\b{name}\b", made), f"scripts/setup does not make {name}"
    asked = {secret for item in SERVICES.values() for secret in item.get("secrets", ())}
    assert asked == set(COMPOSE["secrets"])
    for name, item in SERVICES.items():
        for variable in item.get("environment", {}):
            assert "PASSWORD" not in variable or variable.endswith("_FILE"), f"{name}: {variable}"


def test_every_volume_and_network_is_used() -> None:
    """The named ones, and the journal's is the remediator's alone."""
    mounts = {name: [str(mount).split(":")[0] for mount in item.get("volumes", ())] for name, item in SERVICES.items()}
    for volume in COMPOSE["volumes"]:
        assert any(volume in places for places in mounts.values()), volume
    assert [name for name, places in mounts.items() if "remediator-journal" in places] == ["remediator"]
    for network in COMPOSE["networks"]:
        assert any(network in item["networks"] for item in SERVICES.values()), network

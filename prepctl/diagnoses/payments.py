"""`payments:*`: what fails, and whose fault it is. Retrying is `prepctl act retry_failed_payments`."""

from __future__ import annotations

from typing import Annotated

import typer

from prepctl.diagnoses.asking import CONFIG, AsJson, Config, Service, chosen, load, tell

app = typer.Typer()


@app.command("payments:recent")
def recent(
    failed: Annotated[
        bool, typer.Option("--failed", help="Only failed ones: so it is anyway, the owner lists no others.")
    ] = True,
    service: Service = "",
    config: Config = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Failed payments of the last hour by reason, and how many may be retried. No order and no card is shown."""
    del failed
    settings = load(config)
    which = chosen(list(settings.payments), service, "payments")
    tell(settings, which, "payments:recent", "recent_failures", as_json=as_json)


@app.command("payments:provider")
def provider(service: Service = "", config: Config = CONFIG, as_json: AsJson = False) -> None:
    """What the payment provider's own status page says. A page that is silent proves nothing."""
    settings = load(config)
    which = chosen(list(settings.payments), service, "payments")
    tell(settings, which, "payments:provider", "stripe_status", as_json=as_json)

"""Background collector `vendors`: what vendors' status pages say of themselves.

In: `api/v2/status.json` or `summary.json` of Statuspage (the fields: https://metastatuspage.com/api/v2; Stripe's
page answers in the same shape). Out: state-sets. A word that is not known is `unknown`; a page that cannot be read has
no status. It must never put a word of a page into a label.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from exporter.background_settings import VendorPage
from exporter.background_settings import VendorsCollector as VendorsSettings
from exporter.catalog import vendors as catalog
from exporter.errors import Transient
from exporter.samples import Collected, Sample, state_set
from exporter.web_client import Resolver, open_session, read_capped

_MAX_BYTES = 4_194_304
"""Of a page; the largest summaries seen in public are well below 1 MiB."""


class VendorsCollector:
    """All pages, side by side."""

    name = "vendors"

    def __init__(self, settings: VendorsSettings) -> None:
        self._pages = settings.pages
        self._resolver = Resolver(urlsplit(page.url).hostname or "" for page in settings.pages.values())
        self._session: aiohttp.ClientSession | None = None

    async def collect(self, deadline: float) -> Collected:
        if self._session is None:
            self._session = open_session(self._resolver)
        asked = (self._page(self._session, vendor, page, deadline) for vendor, page in self._pages.items())
        parts = await asyncio.gather(*asked)
        samples = tuple(sample for part in parts for sample in part.samples)
        return Collected(samples, "; ".join(part.fault for part in parts if part.fault) or None)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        await self._resolver.close()

    async def _page(self, session: aiohttp.ClientSession, vendor: str, page: VendorPage, deadline: float) -> Collected:
        deadline = min(deadline, asyncio.get_running_loop().time() + page.timeout)
        try:
            async with asyncio.timeout_at(deadline):
                found = parse(vendor, page.components, await _read(session, page))
        except TimeoutError:
            fault = "no answer in time"
        except (aiohttp.ClientError, OSError) as error:
            fault = f"no answer ({type(error).__name__})"
        except (Transient, ValueError, RecursionError) as error:
            fault = str(error) if isinstance(error, Transient) else f"not JSON ({type(error).__name__})"
        else:
            return Collected((Sample(catalog.VENDOR_PAGE_UP, (vendor,), 1.0), *found))
        return Collected((Sample(catalog.VENDOR_PAGE_UP, (vendor,), 0.0),), f"vendors: page of {vendor}: {fault}")


async def _read(session: aiohttp.ClientSession, page: VendorPage) -> Any:
    """The page's JSON. Raises Transient, ValueError, RecursionError, aiohttp's errors and OSError."""
    file = "summary.json" if page.components else "status.json"
    async with session.get(f"{page.url.rstrip('/')}/api/v2/{file}", allow_redirects=False) as response:
        if response.status != 200:
            raise Transient(f"it answered {response.status}")
        body = await read_capped(response, _MAX_BYTES)
    if len(body) == _MAX_BYTES:
        raise Transient(f"longer than {_MAX_BYTES} bytes")
    return json.loads(body)


def parse(vendor: str, components: Mapping[str, str], document: Any) -> tuple[Sample, ...]:
    """A page's JSON to samples. Raises Transient when it is not a status page's."""
    try:
        word = document["status"]["indicator"]
        listed = document["components"] if components else []
    except (KeyError, TypeError) as error:
        raise Transient("not the JSON of a status page") from error
    if not isinstance(listed, list):
        raise Transient("not the JSON of a status page")
    whole = state_set(catalog.VENDOR_STATUS, (vendor,), {_known(word, catalog.INDICATORS)})
    return (*whole, *_components(vendor, components, listed))


def _components(vendor: str, components: Mapping[str, str], listed: Sequence[Any]) -> Iterator[Sample]:
    entries = [entry for entry in listed if isinstance(entry, dict)]
    for label, wanted in components.items():
        found = next((entry for entry in entries if wanted in (entry.get("id"), entry.get("name"))), {})
        state = _known(found.get("status"), catalog.COMPONENT_STATES)
        yield from state_set(catalog.VENDOR_COMPONENT_STATUS, (vendor, label), {state})


def _known(word: Any, words: tuple[str, ...]) -> str:
    return word if isinstance(word, str) and word in words else "unknown"

"""A client of Docker's API for the collectors: it speaks the engine's own version, and its errors are ours.

In: the address. Out: the SDK's client, inside of `client()`, which turns what goes wrong into the error tree. It must
never send anything but GET; each collector has one of its own, and uses it from one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
from docker.errors import APIError, DockerException

from exporter.errors import Permanent, Transient, Unreachable

_ANY_VERSION = "1.41"
"""Only so that the SDK does not ask by itself: the version in use is the server's own, since new ones refuse old."""


class DockerApi:
    """One kept client, made anew after every error."""

    def __init__(self, base_url: str, timeout: float) -> None:
        """`timeout` in seconds, for each call."""
        self._base_url = base_url
        self._timeout = max(1, round(timeout))
        self._client: docker.APIClient | None = None

    @contextmanager
    def client(self) -> Iterator[docker.APIClient]:
        """The client. Raises Unreachable when nobody answers, Permanent for a GET that the gate refuses, Transient for
        the engine's other refusals.
        """
        try:
            yield self._connected()
        except APIError as error:
            self.forget()
            raise _refusal(error) from error
        except (DockerException, requests.RequestException, OSError) as error:
            self.forget()
            raise Unreachable(f"docker at {self._base_url}: no answer ({type(error).__name__})") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # What the SDK, or the reading of its answer, raises on JSON that is not Docker's.
            self.forget()
            raise Transient(f"docker at {self._base_url}: an answer that is not Docker's ({error!r:.80})") from error

    def forget(self) -> None:
        """Close the kept connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> docker.APIClient:
        if self._client is None:
            asking = self._client_of(_ANY_VERSION)
            try:
                served = asking.version(api_version=False)["ApiVersion"]
            finally:
                asking.close()
            self._client = self._client_of(served)
        return self._client

    def _client_of(self, version: str) -> docker.APIClient:
        client = docker.APIClient(self._base_url, version=version, timeout=self._timeout)
        client.trust_env = False  # a proxy of the environment is not the way to our own engine
        return client


def _refusal(error: APIError) -> Permanent | Transient:
    status = error.response.status_code if error.response is not None else 0
    words = f"docker: the API answered {status}"
    if status == 403:
        return Permanent(f"{words}: the gate does not allow this GET")
    return Transient(words)

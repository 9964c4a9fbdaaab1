"""HTTPS by hand from inside a machine: for what no client would do, and for looking at an answer while it arrives."""

import hashlib
import http.client
import json
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from tests.lab import world
from tests.lab.net import Machine

PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def error_codes(self) -> list[str]:
        return [each["code"] for each in json.loads(self.body)["errors"]]


class Wire:
    """Opens TLS connections from one machine to one address, trusting one authority."""

    def __init__(self, machine: Machine, ca_file: Path, address: str | None = None) -> None:
        """`address` None: where the machine's own DNS says the name is."""
        self._machine = machine
        self._address = address
        self.context = ssl.create_default_context(cafile=ca_file)

    def tls(self, sni: str, *, ragged: bool = True) -> ssl.SSLSocket:
        """`ragged`: an end without TLS's goodbye reads like any other; else it raises `ssl.SSLEOFError`."""
        address = self._address or next(iter(self._machine.lookup(sni)), None)
        if address is None:
            raise OSError(f"{sni} does not resolve on {self._machine.name}")
        plain = self._machine.connect(address, 443)
        try:
            plain.settimeout(40)
            return self.context.wrap_socket(plain, server_hostname=sni, suppress_ragged_eofs=ragged)
        except BaseException:
            plain.close()
            raise

    def open(self, host: str, sni: str | None = None) -> http.client.HTTPConnection:
        """A connection for any number of requests; close it."""
        connection = http.client.HTTPConnection(host)
        connection.sock = self.tls(sni or host)
        return connection

    def ask(
        self,
        host: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
        sni: str | None = None,
    ) -> Reply:
        """One request on a connection of its own."""
        connection = self.open(host, sni)
        try:
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def authorization(
        self, repository: world.Repository, actions: str = "pull", login: tuple[str, str] | None = None
    ) -> dict[str, str]:
        """The header a client would send for this repository: a token, fetched now, or the login itself, or none."""
        basic = {}
        if login is not None:
            basic = {"Authorization": f"Basic {b64encode(':'.join(login).encode()).decode()}"}
        service = repository.registry.auth
        if not isinstance(service, world.TokenService):
            return basic
        query = urlencode({"service": service.service, "scope": f"repository:{repository.path}:{actions}"})
        reply = self.ask(service.host, f"{service.path}?{query}", basic)
        assert reply.status == 200, reply
        return {"Authorization": f"Bearer {json.loads(reply.body)['token']}"}


class Line(http.client.HTTPConnection):
    """One connection to a host after the other, for one request after the other; close it."""

    def __init__(self, wire: Wire, host: str) -> None:
        super().__init__(host)
        self._wire = wire

    def connect(self) -> None:
        """For http.client: when there is none, or the other side has said that it closes."""
        self.sock = self._wire.tls(self.host)

    def ask(self, target: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> Reply:
        self.request(method, target, headers=dict(headers or {}))
        answer = self.getresponse()
        return Reply(answer.status, answer.headers, answer.read())


class Download:
    """A GET whose body is read piece by piece."""

    def __init__(self, wire: Wire, host: str, target: str, headers: Mapping[str, str]) -> None:
        self._connection = wire.open(host)
        self._connection.request("GET", target, headers=dict(headers))
        self._answer = self._connection.getresponse()
        self._hash = hashlib.sha256()
        self.status = self._answer.status
        self.received = 0

    def read(self, up_to: int | None = None) -> None:
        """Read on until `up_to` bytes of the body are here, or to its end."""
        while up_to is None or self.received < up_to:
            piece = self._answer.read(PIECE if up_to is None else min(PIECE, up_to - self.received))
            if not piece:
                break
            self._hash.update(piece)
            self.received += len(piece)
        if up_to is None:
            self._connection.close()

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def close(self) -> None:
        self._connection.close()


type End = Literal["whole", "goodbye", "fin", "reset"]
"""How an answer ended: with its last byte, or before it, by TLS's close_notify, by FIN alone, by RST."""


class Listener:
    """One GET on a connection of its own, looked at closely: every byte that came, and how it ended."""

    def __init__(self, wire: Wire, host: str) -> None:
        self.socket = wire.tls(host, ragged=False)
        self._connection = http.client.HTTPConnection(host)
        self._connection.sock = self.socket
        self.status = 0  # until there is one
        self.headers = http.client.HTTPMessage()
        self.body = bytearray()
        self.asked = False
        self.end: End | None = None

    def get(self, target: str, headers: Mapping[str, str]) -> None:
        """Ask, and read until it ends. Others may look at what has come meanwhile."""
        try:
            self._connection.request("GET", target, headers=dict(headers))
            self.asked = True
            answer = self._connection.getresponse()
            self.headers, self.status = answer.headers, answer.status
            while piece := answer.read1(PIECE):
                self.body += piece
            self.end = "goodbye" if answer.length else "whole"
        except ssl.SSLEOFError:
            self.end = "fin"
        except http.client.IncompleteRead:  # of a body in chunks
            self.end = "goodbye"
        except ConnectionResetError:
            self.end = "reset"
        finally:
            self.close()

    def close(self) -> None:
        self._connection.close()
        self.socket.close()

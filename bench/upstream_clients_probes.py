"""Requirements a client must meet whatever its speed, each tried on a real loopback server."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.upstream_clients_adapters import Adapter, Fields, Setup
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "registry.test"
type Make = Callable[[Setup], Adapter]


def authority(directory: Path, label: str) -> tuple[Path, Path]:
    """A CA of its own and a P-256 leaf for NAME; gives the CA file and the file with leaf and key."""
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bench {label}")])

    def certificate(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=ca,
                    crl_sign=ca,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if not ca:
            names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return builder.sign(ca_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    ca_file, leaf_file = directory / f"{label}-ca.pem", directory / f"{label}-leaf.pem"
    ca_file.write_bytes(certificate(issuer, ca_key, ca=True).public_bytes(pem))
    leaf = certificate(x509.Name([]), leaf_key, ca=False).public_bytes(pem)
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    leaf_file.write_bytes(leaf + key)
    return ca_file, leaf_file


@dataclass
class Seen:
    """What a server noticed."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


type Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Answer, leaf: Path | None = None) -> AsyncIterator[Seen]:
    """A server on a free port that notes heads and SNI and answers as told."""
    seen = Seen()
    tasks: set[asyncio.Task[None]] = set()
    context: ssl.SSLContext | None = None
    if leaf is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf)
        context.sni_callback = lambda _socket, name, _context: seen.names.append(name)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                seen.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await answer(writer)
        except (OSError, EOFError):
            seen.gone.set()
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sends(*pieces: bytes, pause: float = 0.0, then_close: bool = False) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        if then_close:
            writer.close()

    return answer


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOSTS = {NAME: ["127.0.0.1"]}


async def fetch(
    make: Make, setup: Setup, url: str, fields: Fields, ca: Path | None = None
) -> tuple[int, Fields, bytes]:
    pieces: list[bytes] = []
    client = make(setup)
    try:
        status, received = await client.fetch(url, fields, lambda piece: pieces.append(bytes(piece)), ca)
        return status, received, b"".join(pieces)
    finally:
        await client.aclose()


async def fails(make: Make, setup: Setup, url: str) -> bool:
    try:
        await fetch(make, setup, url, [])
    except Exception:  # each client has its own kinds
        return True
    return False


async def address_of_ours(make: Make, tmp: Path) -> str:
    ca, leaf = authority(tmp, "sni")
    async with serving(sends(OK), leaf) as seen:
        await fetch(make, Setup(ca=ca, hosts=HOSTS), f"https://{NAME}:{seen.port}/", [])
        host = f"host: {NAME}:{seen.port}".encode()
        return "yes" if seen.names == [NAME] and host in seen.heads[0].lower() else "NO"


async def trust_per_request(make: Make, tmp: Path) -> str:
    (ca_a, leaf_a), (ca_b, leaf_b) = authority(tmp, "a"), authority(tmp, "b")
    async with serving(sends(OK), leaf_a) as a, serving(sends(OK), leaf_b) as b:
        if not await fails(make, Setup(ca=ca_a, hosts=HOSTS), f"https://{NAME}:{b.port}/"):
            return "NO: trusts a foreign CA"
        try:
            client = make(Setup(hosts=HOSTS))
            try:
                await client.fetch(f"https://{NAME}:{a.port}/", [], lambda _: None, ca_a)
                await client.fetch(f"https://{NAME}:{b.port}/", [], lambda _: None, ca_b)
            finally:
                await client.aclose()
        except NotImplementedError:
            await fetch(make, Setup(ca=ca_a, hosts=HOSTS), f"https://{NAME}:{a.port}/", [])
            return "per client"
        return "yes"


async def read_timeout(make: Make, tmp: Path) -> str:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"
    async with serving(sends(head, *[b"x"] * 8, pause=0.25)) as slow:
        url = f"http://{NAME}:{slow.port}/"
        try:
            _, _, body = await fetch(make, Setup(hosts=HOSTS, read_timeout=1.0), url, [])
        except Exception:
            return "NO: a slow body counts as stalled"
    async with serving(sends(head, b"x", pause=8.0)) as stalled:
        started = time.monotonic()
        url = f"http://{NAME}:{stalled.port}/"
        raised = await fails(make, Setup(hosts=HOSTS, read_timeout=1.0), url)
        took = time.monotonic() - started
    return ("yes" if took < 1.7 else f"coarse ({took:.0f} s for 1)") if raised and len(body) == 8 else "NO"


async def raw_fields(make: Make, tmp: Path) -> str:
    sent = [("X-One", "1"), ("x-two", "2"), ("X-One", "3")]
    back = b"HTTP/1.1 200 OK\r\nX-Up: a\r\nx-low: b\r\nX-Up: c\r\nContent-Length: 0\r\n\r\n"
    async with serving(sends(back)) as seen:
        _, received, _ = await fetch(make, Setup(hosts=HOSTS), f"http://{NAME}:{seen.port}/", list(sent))
    lines = [line for line in seen.heads[0].decode().split("\r\n") if line[:2].lower() == "x-"]
    out = lines == [f"{name}: {value}" for name, value in sent]
    into = [pair for pair in received if pair[0].lower().startswith("x-")]
    spelt = into == [("X-Up", "a"), ("x-low", "b"), ("X-Up", "c")]
    kept = sorted((name.lower(), value) for name, value in into) == [("x-low", "b"), ("x-up", "a"), ("x-up", "c")]
    if out and spelt:
        return "yes"
    return f"out {'yes' if out else 'NO'}, in {'yes' if spelt else 'values only' if kept else 'NO'}"


async def identity(make: Make, tmp: Path) -> str:
    body = b"\x1f\x8b not really gzip"
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving(sends(head + body)) as seen:
        url, fields = f"http://{NAME}:{seen.port}/", [("Accept-Encoding", "identity")]
        _, _, received = await fetch(make, Setup(hosts=HOSTS), url, fields)
    asked = [line for line in seen.heads[0].lower().split(b"\r\n") if line.startswith(b"accept-encoding")]
    return "yes" if received == body and asked == [b"accept-encoding: identity"] else "NO"


async def no_redirect(make: Make, tmp: Path) -> str:
    answer = sends(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
    async with serving(answer) as seen:
        status, _, _ = await fetch(make, Setup(hosts=HOSTS), f"http://{NAME}:{seen.port}/", [])
        return "yes" if status == 307 and len(seen.heads) == 1 else "NO"


async def cancelling(make: Make, tmp: Path) -> str:
    ca, leaf = authority(tmp, "cancel")

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            await asyncio.sleep(0)  # drain alone never yields while the buffer has room

    async with serving(endless, leaf) as seen:
        client, began = make(Setup(ca=ca, hosts=HOSTS)), asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_piece(_: bytes) -> None:
            loop.call_soon_threadsafe(began.set)

        task = asyncio.ensure_future(client.fetch(f"https://{NAME}:{seen.port}/", [], on_piece))
        await began.wait()
        started = time.monotonic()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(TimeoutError):
            await asyncio.wait_for(seen.gone.wait(), 3)
        took = time.monotonic() - started
        await client.aclose()
    return ("yes" if took < 0.2 else f"after {took:.1f} s") if seen.gone.is_set() else "NO: open after 3 s"


async def cut_body(make: Make, tmp: Path) -> str:
    answer = sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", pause=0.2, then_close=True)
    async with serving(answer) as seen:
        return "yes" if await fails(make, Setup(hosts=HOSTS), f"http://{NAME}:{seen.port}/") else "NO"


async def garbled_chunk(make: Make, tmp: Path) -> str:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(sends(head, b"5\r\nhello\r\n", b"zz\r\nworld", pause=0.2)) as seen:
        url = f"http://{NAME}:{seen.port}/"
        try:
            raised = await asyncio.wait_for(fails(make, Setup(hosts=HOSTS, read_timeout=1.0), url), 5)
        except TimeoutError:
            return "NO: hangs, read timeout or not"
    return "yes" if raised else "NO"


async def surplus_answer(make: Make, tmp: Path) -> str:
    surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus"
    async with serving(sends(OK[:-2], OK[-2:] + surplus, pause=0.1)) as seen:
        client, bodies = make(Setup(hosts=HOSTS)), []
        try:
            for _ in range(2):
                body = bytearray()
                await client.fetch(f"http://{NAME}:{seen.port}/", [], body.extend)
                bodies.append(bytes(body))
                await asyncio.sleep(0.1)
        except Exception:
            return "yes (raises)"
        finally:
            await client.aclose()
    return "yes" if bodies == [b"ok", b"ok"] else "NO: answers the next request"


async def happy_eyeballs(make: Make, tmp: Path) -> str:
    """The first address swallows packets: a listener whose queue is full."""
    async with serving(sends(OK)) as seen:
        with socket.socket(socket.AF_INET6) as hole:
            hole.bind(("::1", seen.port))
            hole.listen(0)
            fill = [socket.socket(socket.AF_INET6) for _ in range(3)]
            for one in fill:
                one.setblocking(False)
                with suppress(BlockingIOError):
                    one.connect(("::1", seen.port))
            try:
                started = time.monotonic()
                setup = Setup(hosts={NAME: ["::1", "127.0.0.1"]})
                await asyncio.wait_for(fetch(make, setup, f"http://{NAME}:{seen.port}/", []), 3)
                took = time.monotonic() - started
            except Exception:
                return "NO"
            finally:
                for one in fill:
                    one.close()
    return f"yes ({took:.1f} s)" if took < 1.5 else f"after {took:.1f} s"


PROBES: dict[str, Callable[[Make, Path], Awaitable[str]]] = {
    "address of ours, name in SNI and Host": address_of_ours,
    "CA per request": trust_per_request,
    "read timeout, not total": read_timeout,
    "fields raw, in order, repeated": raw_fields,
    "identity, nothing decoded": identity,
    "no automatic redirect": no_redirect,
    "cancel closes a TLS socket": cancelling,
    "a cut body raises": cut_body,
    "a garbled chunk raises": garbled_chunk,
    "a surplus answer is nobody's": surplus_answer,
    "second address when the first is silent": happy_eyeballs,
}

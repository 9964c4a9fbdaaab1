"""The fetching process put together: what it asks in the name of the box it finds out by itself."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes.guarded import GuardedRegistry, guarded

from entrepot.cli.brief import Brief
from entrepot.cli.fetch_child import Service
from entrepot.cli.places import prepare
from entrepot.config import Advertise, Certs, Config, Endpoint, Listen, PasswordFile, RegistryEntry, Store, Upstream
from entrepot.engine.messages import PullRequest, Refused
from entrepot.engine.parcel import pack
from entrepot.headers import Headers
from entrepot.registry.catalogue import Registry
from entrepot.registry.digests import Digest
from entrepot.registry.routes import BlobRoute

CONTENT = b"layer" * 100


def configured(folder: Path, registry: GuardedRegistry) -> Config:
    place = PasswordFile("box", folder / "password")
    return Config(
        listen=Listen(address=("192.0.2.5",), https=8443, workers=1),
        advertise=Advertise(("192.0.2.5",)),
        certs=Certs(path=folder / "ca"),
        store=Store(path=folder / "store"),
        upstream=Upstream(resolvers=(Endpoint("127.0.0.1", 9),)),
        registries=(RegistryEntry("registry.example", upstream=registry.url, credentials=place),),
    )


async def fetched(service: Service, digest: Digest) -> bytes:
    """The blob, by an order such as workers give."""
    route = BlobRoute("org/private", digest)
    known = Registry("registry.example", (), (), "")
    order = pack(PullRequest("GET", known, route, Headers([("Accept", "*/*")]), "192.0.2.1", asks="box"))
    async with service._source(order).open(0) as opened:
        return b"".join([chunk async for chunk in opened.chunks])


async def test_credentials_are_read_here_and_again_when_the_configuration_is(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("box-password\n")
    password.chmod(0o600)
    async with guarded() as registry:
        registry.readers["org/private"] = {"box"}
        digest = registry.push_blob("org/private", CONTENT)
        config = configured(tmp_path, registry)
        prepare(config)
        service = Service(Brief(config, 0, (), None, "entrepot-1a"))
        try:
            assert await fetched(service, digest) == CONTENT
            registry.revoke("box")
            registry.accounts["box"] = "changed"
            with pytest.raises(Refused):
                await fetched(service, digest)
            password.write_text("changed\n")
            service.reconfigure(replace(config))
            assert await fetched(service, digest) == CONTENT
        finally:
            await service.close()

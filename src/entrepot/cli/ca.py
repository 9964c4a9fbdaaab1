"""`entrepot ca`: shows the CA, exports it, puts it into trust stores and takes it out, rotates it.

Glue: options in, a plan or a certificate of `entrepot.certs` out. The CA directory and the registries come from the
configuration, whose file the main command has put into the context as "config_path".
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import click
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from entrepot.certs import names, profiles, rotation, trust
from entrepot.certs.authority import fingerprint
from entrepot.certs.errors import TrustError
from entrepot.certs.rotation import Published, published
from entrepot.certs.steps import Step, as_json, changes, describe, run_command
from entrepot.certs.steps import apply as carry_out
from entrepot.cli.ca_view import as_lines, as_object, name_of
from entrepot.cli.options import config_for_group, loaded
from entrepot.cli.places import place_to_read
from entrepot.config import Config
from entrepot.config.overrides import catalogue, subtrees
from entrepot.errors import EntrepotError

_ALL: Final = "all"


@click.group()
def ca() -> None:
    """The CA that clients trust: it can sign for registries only."""


@ca.command()
@config_for_group
@click.option("--pem", is_flag=True, help="Print what clients are to trust, as PEM, and nothing else.")
@click.option("--json", "as_data", is_flag=True, help="Print an object for programs.")
@click.pass_context
def show(context: click.Context, *, pem: bool, as_data: bool) -> None:
    """Show the CA: fingerprint, validity, and the names it can sign for."""
    if pem and as_data:
        raise click.UsageError("--pem and --json exclude each other")
    with _told():
        config = _config(context)
        found = published(config.certs.path)
        wanted = subtrees(config)
    if pem:
        click.echo(found.pem.decode(), nl=False)
    elif as_data:
        click.echo(json.dumps(as_object(config.certs.path, found, wanted), indent=2))
    else:
        click.echo("\n".join(as_lines(config.certs.path, found, wanted, datetime.now(UTC))))


@ca.command()
@config_for_group
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; the default is stdout.")
@click.option("--format", "form", type=click.Choice(["pem", "der", "p7b"]), default="pem", show_default=True)
@click.pass_context
def export(context: click.Context, *, out: Path | None, form: str) -> None:
    """Write what clients are to trust: one certificate, or two during a rotation. Never a key."""
    with _told():
        content = _encoded(published(_config(context).certs.path), form)
        if out is None or str(out) == "-":
            click.echo(content, nl=False)
            return
        try:
            out.write_bytes(content)
        except OSError as failure:
            raise TrustError(f"cannot write {out}: {failure.strerror}") from failure


def _store_options[**P, R](command: Callable[P, R]) -> Callable[P, R]:
    """The options that `install` and `uninstall` share."""
    for option in reversed(
        (
            click.option(
                "--store",
                "stores",
                multiple=True,
                type=click.Choice([*trust.kinds(), _ALL]),
                default=[_ALL],
                help="Trust store; may be repeated. The default, all, is every one that is found.",
            ),
            click.option(
                "--root",
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                default="/",
                help="Work on the tree of files in this folder (an image, another disk) and run nothing.",
            ),
            click.option(
                "--registry",
                "registries",
                multiple=True,
                metavar="HOST",
                help="For docker, containerd and podman: this registry only; may be repeated.",
            ),
            click.option(
                "--ca",
                "source",
                type=click.File("rb"),
                help='CA file, "-" for stdin; the default is the CA of this box.',
            ),
            click.option("--dry-run", is_flag=True, help="Show what would be done."),
            click.option("--json", "as_data", is_flag=True, help="Print an object for programs."),
        )
    ):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class _Request:
    """The options of `install` and `uninstall`."""

    stores: Sequence[str]
    root: Path
    registries: Sequence[str]
    source: IO[bytes] | None
    dry_run: bool
    as_data: bool

    def kinds(self) -> list[str]:
        """The stores to work on. Raises `TrustError` when there is none."""
        root = self.root.resolve()
        kinds = list(dict.fromkeys(kind for name in self.stores for kind in _kinds(name, root)))
        if not kinds:
            raise TrustError(f"found no trust store in {root}; name one with --store: {', '.join(trust.kinds())}")
        return kinds


@ca.command()
@config_for_group
@_store_options
@click.pass_context
def install(context: click.Context, /, **options: Any) -> None:
    """Make this host, or the tree of files in --root, trust the CA."""
    request = _Request(**options)
    with _told():
        kinds = request.kinds()
        config = _config(context)
        pem = published(config.certs.path).pem if request.source is None else request.source.read()
        hosts = request.registries or _registries(config)
        root = request.root.resolve()
        _carry_out(request, {kind: trust.plan_install(kind, pem, hosts, root) for kind in kinds})


@ca.command()
@config_for_group
@_store_options
@click.pass_context
def uninstall(context: click.Context, /, **options: Any) -> None:
    """Take the CA out again; without --ca also the one before the last rotation and the one to come."""
    request = _Request(**options)
    with _told():
        kinds = request.kinds()
        if request.source is not None:
            pem = request.source.read()
        else:
            found = published(_config(context).certs.path)
            every = (found.current, found.next, found.previous)
            pem = b"".join(profiles.pem(one) for one in every if one is not None)
        root = request.root.resolve()
        _carry_out(request, {kind: trust.plan_uninstall(kind, pem, request.registries, root) for kind in kinds})


@ca.command()
@config_for_group
@click.option("--finish", is_flag=True, help="Sign with the new CA from now on; every client must trust it.")
@click.option("--cancel", is_flag=True, help="Forget the new CA.")
@click.pass_context
def rotate(context: click.Context, *, finish: bool, cancel: bool) -> None:
    """Make a new CA for all registries of today, published beside the old one until --finish."""
    if finish and cancel:
        raise click.UsageError("--finish and --cancel exclude each other")
    with _told():
        config = _config(context)
        path = config.certs.path
        if cancel:
            kept = rotation.cancel(path).current
            click.echo(f"the new CA is gone; {name_of(kept)} goes on")
        elif finish:
            _say_finished(path, rotation.finish(path))
        else:
            _say_begun(rotation.begin(path, subtrees(config), now=datetime.now(UTC)))


def _say_begun(found: Published) -> None:
    if found.next is not None:
        click.echo(f"{name_of(found.next)} is made, SHA-256 {fingerprint(found.next)}")
    click.echo(f"Leaves are still signed by {name_of(found.current)}; both are published. Now:")
    click.echo("  1. have every client trust both: `entrepot ca install` here, `entrepot ca export` for the others")
    click.echo("  2. then `entrepot ca rotate --finish` (or --cancel)")


def _say_finished(path: Path, found: Published) -> None:
    click.echo(f"{name_of(found.current)} signs from now on; the key of the old CA is deleted. Now:")
    click.echo("  1. reload the running service (SIGHUP): until then it signs with the old one")
    click.echo(
        f"  2. in time, take the old CA out of clients: `entrepot ca uninstall --ca {path / 'previous' / 'ca.crt'}`"
    )


class _BadInput(click.ClickException):
    """What was given cannot be used."""

    exit_code = 2


@contextmanager
def _told() -> Iterator[None]:
    """Our errors as one line; exit code 2 for bad input, else 1."""
    try:
        yield
    except EntrepotError as failure:
        kind = _BadInput if isinstance(failure, ValueError) else click.ClickException
        raise kind(str(failure)) from failure


def _config(context: click.Context) -> Config:
    return place_to_read(loaded(context, None), os.environ)


def _registries(config: Config) -> list[str]:
    """The registries as image names have them. Families have no list; for these the system's store is the way."""
    listed = [registry.name for registry in catalogue(config).registries()]
    return [name for name in listed if names.subtree(name.partition(":")[0]) is not None]


def _kinds(name: str, root: Path) -> Sequence[str]:
    return trust.detect(root) if name == _ALL else [name]


def _carry_out(request: _Request, plans: dict[str, list[Step]]) -> None:
    """Shows the plans, and carries them out unless they are only asked for."""
    for kind, steps in plans.items():
        if not request.as_data:
            for line in dict.fromkeys(map(describe, steps)):
                click.echo(f"{kind}: {line}")
            if not changes(steps):
                click.echo(f"{kind}: nothing to do")
        if not request.dry_run:
            carry_out(steps, run_command)
    if request.as_data:
        done = [
            {"store": kind, "changed": changes(steps), "steps": list(map(as_json, steps))}
            for kind, steps in plans.items()
        ]
        click.echo(json.dumps({"root": str(request.root), "dry_run": request.dry_run, "stores": done}, indent=2))


def _encoded(found: Published, form: str) -> bytes:
    if form == "pem":
        return found.pem
    if form == "p7b":
        return pkcs7.serialize_certificates(list(found.trusted), Encoding.DER)
    if found.next is not None:
        raise TrustError("a rotation is under way and DER holds one certificate; use --format pem or p7b")
    return found.current.public_bytes(Encoding.DER)

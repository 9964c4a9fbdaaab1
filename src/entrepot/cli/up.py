"""`entrepot up`: the order of a start, and what a running supervisor is asked.

The order is what makes a start quick: configuration, folders, ports (milliseconds); then the children, which spend most
of a start importing; then, while they do, what only this process needs: the CA, if there is none yet.
"""

import logging
import os
import secrets
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from entrepot import __version__
from entrepot.certs.files import ROOT
from entrepot.cli import banner, logs, ports
from entrepot.cli.addresses import WILDCARDS, outward_address
from entrepot.cli.brief import Brief, leave_line, reload_line
from entrepot.cli.capacity import leave_no_core, raise_file_limit, worker_count
from entrepot.cli.notify import notify
from entrepot.cli.options import chosen, config_option
from entrepot.cli.places import place, prepare
from entrepot.cli.processes import Role, own_environment
from entrepot.cli.supervisor import Plans, Supervisor
from entrepot.config.load import load
from entrepot.config.model import Config
from entrepot.counters import Counters
from entrepot.errors import EntrepotError

_log: Final = logging.getLogger("entrepot.supervisor")

# Sections that a running process does not take anew.
RESTART: Final = ("listen", "certs", "store", "upstream", "log")
# The keys of them that it does take anew.
LIVE: Final = {"upstream": ("attempts", "bandwidth")}
# Seconds that children get beyond the time to drain, to break off what is left in an orderly way (FIN, never RST).
_LAST_WORDS: Final = 2.0
_UMASK: Final = 0o027  # the store holds private images
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # looked up, not bound


class NothingToServe(EntrepotError):
    """Every port this version serves is off."""


class Box:
    """One running installation: what is configured, what is in force."""

    def __init__(self, path: Path | None, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        loaded = load(path, environ)
        placed = place(loaded, environ)
        self._wished = loaded.config
        logs.configure(loaded.config.log, "supervisor")
        self.plan = ports.plan(loaded.config.listen)
        if not (self.plan.https_port or self.plan.dns_port):
            raise NothingToServe("nothing to serve: listen.https and listen.dns are both 0")
        for note in (*placed.notes, *self.plan.notes):
            _log.warning("%s", note)
        plan = self.plan
        listen = replace(placed.config.listen, https=plan.https_port, dns=plan.dns_port, web=plan.web_port)
        self.config = replace(placed.config, listen=listen)
        self.workers = worker_count(listen.workers)
        prepare(self.config)
        self._sockets = ports.bind_all(self.plan, self.workers)
        run = self.config.store.path / "run"
        _forget_counters(run)
        self._counters = Counters(run / "supervisor-0.json", started=time.time())
        self._marker = f"entrepot-{secrets.token_hex(4)}"
        self._environ_of_children = own_environment(environ)

    def roles(self) -> list[Role]:
        """The processes there are to be; the workers first, they take longest."""
        sockets = self._sockets
        found = [
            Role("proxy", index, tuple(sock.fileno() for sock in worker)) for index, worker in enumerate(sockets.https)
        ]
        if found:
            found.append(Role("fetch", 0))
        if sockets.dns:
            found.append(Role("dns", 0, tuple(sock.fileno() for sock in sockets.dns)))
        if sockets.web:
            found.append(Role("web", 0, tuple(sock.fileno() for sock in sockets.web), vital=False))
        return found

    def run(self) -> int:
        """Runs until told to stop. Returns the exit code."""
        plans = Plans(
            roles=self.roles(),
            command=command,
            environ=self._environ_of_children,
            brief=self.brief,
            reload=self.reload,
            serving=self.serving,
            leaving=self.leaving,
            stopping=self.stopping,
            drain=self.config.listen.drain + _LAST_WORDS,
            died=self.died,
        )
        with Supervisor(plans) as supervisor:
            supervisor.start()
            self.ensure_authority()
            return supervisor.run()

    def ensure_authority(self) -> None:
        """Makes a CA where there is none. What is there is checked by the children, who load it anyway."""
        if self.config.registries:  # a mistake there is one line here, or one from each child
            from entrepot.config.overrides import catalogue  # noqa: PLC0415  # see the head of this file

            catalogue(self.config)
        if self._ca_file.exists():
            return
        from entrepot.certs.authority import Authority  # noqa: PLC0415
        from entrepot.config.overrides import subtrees  # noqa: PLC0415

        Authority.ensure(self.config.certs.path, subtrees(self.config), datetime.now(UTC))
        _log.info("made a CA in %s", self.config.certs.path)

    @property
    def _ca_file(self) -> Path:
        return self.config.certs.path / "current" / ROOT

    def brief(self, role: Role) -> bytes:
        """What a child of this role is told."""
        probe = None
        if self.plan.https_port:
            address = self.plan.https[0]
            probe = _LOOPBACK.get(address, address), self.plan.https_port
        return Brief(self.config, role.index, role.sockets, probe, self._marker).to_line()

    def reload(self) -> bytes | None:
        """On SIGHUP. A configuration that is wrong changes nothing."""
        try:
            fresh = load(self._path, self._environ).config
            from entrepot.config.overrides import catalogue  # noqa: PLC0415

            catalogue(fresh)
        except EntrepotError as refusal:
            _log.error("configuration not reloaded: %s", refusal)
            return None
        if waiting := changed(self._wished, fresh):
            _log.warning("a restart is needed for the changes of %s", ", ".join(waiting))
        self.config = replace(fresh, **{section: in_force(section, self.config, fresh) for section in RESTART})
        _log.info("configuration read again")
        return reload_line(self.config.to_json())

    def serving(self) -> None:
        """Everything is ready."""
        notify(self._environ, "READY=1", f"STATUS=serving, {self.workers} workers")
        serving = banner.Serving(
            version=__version__,
            plan=self.plan,
            workers=self.workers,
            answers=self.config.advertise.addresses,
            outward=_reached_at(self.plan),
            ca=self._ca_file,
            store=self.config.store.path,
        )
        found = banner.lines(serving, self._ca_file.read_text(encoding="ascii"))
        if self.config.log.format == "json":
            for label, text in found:
                _log.info("%s: %s", label, text)
            return
        colour = sys.stdout.isatty() and not self._environ.get("NO_COLOR")
        with suppress(OSError):  # nobody reads it: no reason to stop serving
            click.echo("\n".join(banner.rendered(found, colour=colour)))

    def leaving(self) -> tuple[bytes, float]:
        """The order to stop: DNS steps aside first, if it may and there is anything that it sends clients to."""
        notify(self._environ, "STOPPING=1")
        dns = self.config.dns
        useful = dns.fail_open and self.plan.dns_port and self.plan.https_port
        return leave_line(), dns.drain if useful else 0.0

    def died(self, role: Role) -> None:
        """For the statistics, beside those of the children."""
        self._counters.add(f"restarts_{role.name}")
        with suppress(OSError):  # a full disk costs the statistics, nothing else
            self._counters.flush()

    def stopping(self) -> None:
        """No connection is taken from now on."""
        self._sockets.close()


def _reached_at(plan: ports.Plan) -> str | None:
    """The address clients reach us at."""
    addresses = plan.https or plan.dns
    outward = outward_address()
    if outward in addresses or any(address in WILDCARDS for address in addresses):
        return outward
    return addresses[0]


def command(role: Role) -> list[str]:
    """-P: what lies in the current folder is never imported."""
    return [sys.executable, "-P", "-m", "entrepot.cli.children", role.name]


def in_force(section: str, running: Config, fresh: Config) -> Any:
    """A section that needs a restart, with those of its keys that do not."""
    live = {key: getattr(getattr(fresh, section), key) for key in LIVE.get(section, ())}
    return replace(getattr(running, section), **live)


def changed(before: Config, after: Config) -> list[str]:
    """The keys of sections that need a restart, where the two differ."""
    found = []
    for name in RESTART:
        old, new = getattr(before, name), getattr(after, name)
        keys = [item.name for item in fields(old) if item.name not in LIVE.get(name, ())]
        found += [f"{name}.{key}" for key in keys if getattr(old, key) != getattr(new, key)]
    return found


def _forget_counters(run: Path) -> None:
    """Those of an earlier run, which may have had more processes."""
    for file in run.glob("*.json"):
        with suppress(OSError):
            file.unlink()


@click.command()
@config_option
@click.pass_context
def up(context: click.Context, config_path: Path | None) -> int:
    """Run everything in the foreground.

    Needs no configuration file. SIGHUP reads it again, SIGTERM lets transfers end, a second SIGTERM does not.
    """
    os.umask(_UMASK)
    raise_file_limit()
    leave_no_core()
    return Box(chosen(context, config_path), os.environ).run()

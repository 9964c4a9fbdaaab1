"""The command `entrepot`: a group whose commands are imported when they are used, and the edge where failures end.

Decides what every failure looks like: one line on stderr, exit code 1, or 2 where the input (command line,
configuration) is wrong. What a
command does is in its module; to add one, add it to `COMMANDS`.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from entrepot import __version__
from entrepot.errors import EntrepotError


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not imported yet."""

    place: str
    """module:attribute"""
    summary: str


COMMANDS: Final[Mapping[str, Entry]] = {
    "up": Entry("entrepot.cli.up:up", "Run everything in the foreground."),
    "ca": Entry("entrepot.cli.ca:ca", "The CA that clients trust: show, install, export, rotate."),
    "images": Entry("entrepot.cli.images:images", "List the images that are held."),
    "explain": Entry("entrepot.cli.explain:explain", "What is held of an image, and what its next pull would get."),
    "history": Entry("entrepot.cli.history:history", "What a tag has been: every move, and every order about it."),
    "hold": Entry("entrepot.cli.holds:hold", "Freeze a tag, or all tags of a pattern; list what is held."),
    "release": Entry("entrepot.cli.holds:release", "Let a held tag follow its registry again."),
    "promote": Entry("entrepot.cli.holds:promote", "Let a held tag move on, and hold it there."),
    "rollback": Entry("entrepot.cli.holds:rollback", "Put a tag back to what it was, and hold it there."),
    "purge": Entry("entrepot.cli.purge:purge", "Forget what is known of an image and who may read it."),
    "stats": Entry("entrepot.cli.stats:stats", "Show what is held and what was served."),
    "scrub": Entry("entrepot.cli.housekeeping:scrub", "Hash what is held again; remove what is wrong."),
    "gc": Entry("entrepot.cli.housekeeping:gc", "Remove what is least used, if the limits ask for it."),
    "config": Entry("entrepot.cli.config:config", "Check and show the configuration."),
    "completion": Entry("entrepot.cli.completion:completion", "Print the completion script of a shell."),
}


class LazyGroup(click.Group):
    """Lists commands from a table and imports the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.place} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("--config", "config_path", metavar="FILE", type=click.Path(path_type=Path), help="Configuration file.")
@click.pass_context
def entrepot(context: click.Context, config_path: Path | None) -> None:
    """A transparent cache for container registries: real image names, no client settings.

    `entrepot up` on one box, its DNS and its CA for all others: that is all.
    """
    context.obj = {"config_path": config_path}
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, by default the process's own. Returns the exit code."""
    try:
        result = entrepot.main(arguments, prog_name="entrepot", standalone_mode=False)
    except click.UsageError as refusal:
        return _usage(refusal)
    except click.ClickException as refusal:
        return _failed(refusal.format_message(), refusal.exit_code)
    except EntrepotError as refusal:
        return _failed(str(refusal), 2 if isinstance(refusal, ValueError) else 1)  # bad input is also a ValueError
    except (KeyboardInterrupt, click.Abort):
        return _failed("interrupted")
    except BrokenPipeError:
        # Whoever reads us has enough: `entrepot images | head`. What is left in the buffer must not be tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as failure:
        where = f"{failure.filename}: " if failure.filename else ""
        return _failed(f"{where}{(failure.strerror or str(failure)).lower()}")
    return result if isinstance(result, int) else 0


def _usage(refusal: click.UsageError) -> int:
    path = refusal.ctx.command_path if refusal.ctx else "entrepot"
    message = refusal.format_message().rstrip(".")
    if "\n" in message:  # a group without a command: click's message is its help
        click.echo(message, err=True)
        return 2
    return _failed(f"{message[:1].lower()}{message[1:]}; see `{path} --help`", 2)


def _failed(message: str, code: int = 1) -> int:
    line = " ".join(message.split("\n"))
    click.echo(f"entrepot: {line}", err=True)
    return code


def main() -> None:
    """The entry point of the distribution."""
    sys.exit(run())

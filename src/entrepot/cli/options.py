"""The options that several commands share, and what every command does with them."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from entrepot.config.build import Loaded
from entrepot.config.load import SYSTEM_FILE, load


def config_option[**P, R](command: Callable[P, R]) -> Callable[P, R]:
    """--config FILE, as keyword argument `config_path`; also taken before the command's name."""
    return click.option(
        "--config",
        "config_path",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help=f"Configuration file; by default {SYSTEM_FILE}, if there is one.",
    )(command)


def config_for_group[**P, R](command: Callable[P, R]) -> Callable[P, R]:
    """--config FILE of a command in a group, kept in the context where `chosen` finds it."""

    def keep(context: click.Context, _: click.Parameter, path: Path | None) -> None:
        if path is not None:
            context.ensure_object(dict)["config_path"] = path

    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=keep,
        help=f"Configuration file; by default {SYSTEM_FILE}, if there is one.",
    )(command)


def json_option[**P, R](command: Callable[P, R]) -> Callable[P, R]:
    """--json, as keyword argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")(command)


def order_options[**P, R](command: Callable[P, R]) -> Callable[P, R]:
    """--why TEXT and --dry-run of an order, as keyword arguments `why` and `dry_run`."""
    dry = click.option("--dry-run", is_flag=True, help="Show what would become of it, and change nothing.")
    why = click.option("--why", default="", metavar="TEXT", help="The reason, for `entrepot history`.")
    return why(dry(command))


def chosen(context: click.Context, path: Path | None) -> Path | None:
    """The file named after the command, else the one named before it."""
    if path is None and isinstance(context.obj, dict):
        given = context.obj.get("config_path")
        return None if given is None else Path(given)
    return path


def loaded(context: click.Context, path: Path | None) -> Loaded:
    """The configuration in force. Raises `ConfigError`."""
    return load(chosen(context, path), os.environ)

"""What goes wrong with a configuration. It is always the fault of whoever wrote it."""

from collections.abc import Sequence

from entrepot.errors import EntrepotError


class ConfigError(EntrepotError, ValueError):
    """The configuration cannot be used.

    `problems` has one line per mistake, each with its place (`entrepot.toml:12`, or the name of an environment
    variable), in the order of the file. The message is the first of them, so that it stays one line.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        more = len(self.problems) - 1
        rest = f" (and {more} more: see `entrepot config check`)" if more > 0 else ""
        super().__init__(self.problems[0] + rest)

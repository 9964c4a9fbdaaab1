"""Where each key of a TOML document stands. `tomllib` checks and reads a document but does not say.

Works on documents `tomllib` has accepted; on others it finds what it can. The lines of an inline table's inner keys are
not told apart: they fall back to the line of the outer key, as does every item of a list.
"""

import re
import tomllib
from collections.abc import Mapping
from typing import Final

type KeyPath = tuple[str | int, ...]
"""Keys from the root; the entries of an array of tables are numbered from 0."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
# One step over a value: a string (longest delimiter first), a comment, or any other character.
_STEP: Final = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\#[^\n]*|.''', re.DOTALL
)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.lines: dict[KeyPath, int] = {}
        self._counts: dict[KeyPath, int] = {}
        self._counted = 0
        self._line = 1

    def scan(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_BLANK)
            if self.position >= len(self.text):
                return
            line = self._line_here()
            if self.text.startswith("[", self.position):
                array = self.text.startswith("[[", self.position)
                self.position += 2 if array else 1
                table = self._header(self._key(), array)
                self._note(table, line)
                self.position = self._end_of_line()
            else:
                path = table + self._key()
                if path == table:  # not TOML: leave what is left
                    return
                self._note(path, line, above=len(table))
                self._value()

    def _line_here(self) -> int:
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def _note(self, path: KeyPath, line: int, above: int = 0) -> None:
        """The first place that names a table counts; a dotted key also names the tables in between."""
        for length in range(above + 1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self.text, self.position):
            self.position = found.end()

    def _key(self) -> KeyPath:
        parts: list[str | int] = []
        while True:
            self._skip(_SPACE)
            if not (found := _KEY.match(self.text, self.position)):
                return tuple(parts)
            parts.append(_plain(found[0]))
            self.position = found.end()
            self._skip(_SPACE)
            if not self.text.startswith(".", self.position):
                return tuple(parts)
            self.position += 1

    def _header(self, names: KeyPath, array: bool) -> KeyPath:
        """The path of a header; where it passes through an array of tables it means the latest entry."""
        path: KeyPath = ()
        for depth, name in enumerate(names, start=1):
            path += (name,)
            if array and depth == len(names):
                self._counts[path] = self._counts.get(path, -1) + 1
            if path in self._counts:
                path += (self._counts[path],)
        return path

    def _end_of_line(self) -> int:
        end = self.text.find("\n", self.position)
        return len(self.text) if end < 0 else end

    def _value(self) -> None:
        """Moves past `= value`, to the end of the line where no bracket is open."""
        depth = 0
        while found := _STEP.match(self.text, self.position):
            step = found[0]
            if step == "\n" and depth <= 0:
                return
            depth += (step in "[{") - (step in "]}") if len(step) == 1 else 0
            self.position = found.end()


def _plain(key: str) -> str:
    if key.startswith('"'):
        try:
            return str(tomllib.loads(f"key = {key}")["key"])
        except tomllib.TOMLDecodeError:
            return key
    return key[1:-1] if key.startswith("'") else key


def locate(text: str) -> Mapping[KeyPath, int]:
    """The line, counted from 1, where each table and key of `text` is first named."""
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of `path`, or of the nearest key around it; 1 for the document itself."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1

"""What the programs here have in common: a folder for as long as they measure, and where the numbers go."""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import report


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A program adds its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers there, and leave docs/performance.md alone")
    return parser


def measured(
    name: str, parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace, Path], dict[str, Any]]
) -> dict[str, Any]:
    """What `run` found in a folder of its own; its "text" is the section `name` of docs/performance.md."""
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="entrepot-bench-") as directory:
        os.chmod(directory, 0o755)  # noqa: PTH101  # nginx's worker may be somebody else
        result = run(options, Path(directory))
    print(result["text"])
    report.save(options.json or report.RESULTS / f"{name}.json", result)
    if options.json is None:
        report.replace_section(name, result["text"])
    return result

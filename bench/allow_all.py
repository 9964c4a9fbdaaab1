"""`entrepot up` with an engine that lets everybody in: what the access rules cost is the difference.

    python -P bench/allow_all.py up --config FILE       the supervisor
    python -P bench/allow_all.py child ROLE             started by it

Nothing but the two questions of the rules is replaced: who is asking, and may he.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: a folder there is called `dns`


def supervise(arguments: list[str]) -> int:
    from entrepot.cli import main, up  # noqa: PLC0415  # each process imports what it needs

    up.command = lambda role: [sys.executable, "-P", __file__, "child", role.name]
    return main.run(arguments)


def child(role: str) -> int:
    from entrepot.cli import children  # noqa: PLC0415
    from entrepot.engine.admission import Admission  # noqa: PLC0415
    from entrepot.engine.identity import NOBODY  # noqa: PLC0415
    from entrepot.engine.reception import Reception  # noqa: PLC0415

    async def anybody(self: Reception, request: object) -> object:
        return NOBODY

    Reception.identify = anybody  # type: ignore[assignment, method-assign]
    Admission.admits = lambda self, request, repository: "public"  # type: ignore[method-assign]
    return children.main([role])


if __name__ == "__main__":
    sys.exit(child(sys.argv[2]) if sys.argv[1] == "child" else supervise(sys.argv[1:]))

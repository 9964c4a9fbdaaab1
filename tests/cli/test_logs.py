import io
import json
import logging

from entrepot.cli.logs import configure, one_line
from entrepot.config import Log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(log: Log, stream: io.StringIO | None = None) -> list[str]:
    stream = stream or io.StringIO()
    configure(log, "proxy-0", stream)
    logger = logging.getLogger("entrepot.test")
    logger.debug("d")
    logger.warning("w %s", "a\nb\x1b[2J")
    try:
        raise ValueError("reason")
    except ValueError:
        logger.exception("e")
    return stream.getvalue().splitlines()


def test_lines_for_people() -> None:
    warning, problem, *traceback = lines_of(Log())
    assert warning[19:] == r" warning proxy-0: w a\nb\x1b[2J"
    assert problem.endswith(" error proxy-0: e")
    assert traceback[-1] == "ValueError: reason"


def test_objects_for_programs() -> None:
    warning, problem = map(json.loads, lines_of(Log(format="json")))
    assert warning["message"] == "w a\nb\x1b[2J"
    assert warning["level"] == "warning"
    assert warning["process"] == "proxy-0"
    assert warning["logger"] == "entrepot.test"
    assert warning["time"].endswith("+00:00")
    assert "ValueError: reason" in problem["traceback"]


def test_the_level_decides() -> None:
    assert len(lines_of(Log(level="debug", format="json"))) == 3
    assert len(lines_of(Log(level="error", format="json"))) == 1


def test_colour_is_for_terminals() -> None:
    assert "\033[33mwarning\033[0m" in lines_of(Log(), Terminal())[0]
    assert "\033" not in lines_of(Log())[0]


def test_libraries_are_heard_when_it_matters() -> None:
    stream = io.StringIO()
    configure(Log(), "x", stream)
    for name in ("aiohttp", "mitmproxy.proxy.server"):
        logging.getLogger(name).info("client connect")
    assert stream.getvalue() == ""
    configure(Log(level="debug"), "x", stream)
    logging.getLogger("aiohttp").info("client connect")
    assert "client connect" in stream.getvalue()


def test_mitmproxy_is_never_heard_below_a_warning() -> None:
    """It quotes heads of requests, with what they are authorized by."""
    stream = io.StringIO()
    configure(Log(level="debug"), "x", stream)
    logging.getLogger("mitmproxy.proxy.layers.http").info("Client closed connection: b'Authorization: Basic c2VjcmV0'")
    assert stream.getvalue() == ""
    logging.getLogger("mitmproxy.proxy.server").warning("something is wrong")
    assert "something is wrong" in stream.getvalue()


def test_a_message_stays_one_line() -> None:
    assert one_line("a\r\nb\u2028c é") == "a\\r\\nb\\u2028c é"

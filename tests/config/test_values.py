import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.config import values
from entrepot.config.values import Endpoint, Share

PARSERS = [
    values.parse_bytes,
    values.parse_size,
    values.parse_rate,
    values.parse_duration,
    values.parse_address,
    values.parse_endpoint,
    values.parse_network,
    values.parse_host,
    values.parse_registry,
    values.parse_url,
]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100GiB", 100 * 1024**3),
        ("500MB", 500_000_000),
        ("1.5 kB", 1500),
        ("7b", 7),
        ("2tib", 2 * 1024**4),
        ("60%", Share(60.0)),
        ("0.5 %", Share(0.5)),
        ("100%", Share(100.0)),
    ],
)
def test_sizes(text: str, size: values.Size) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "100", "100G", "-1GB", "1e3MB", "101%", "0%", "%", "1 GiB x", "GiB", "٣GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size with its unit"):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("30s", 30.0), ("5m", 300.0), ("24h", 86400.0), ("7d", 604800.0), ("250ms", 0.25), ("1.5h", 5400.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "5 min", "-1s", "1h30m", "s", "1M", "1e9s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time with its unit"):
        values.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("1.2.3.4", Endpoint("1.2.3.4", 53)),
        ("1.2.3.4:5353", Endpoint("1.2.3.4", 5353)),
        ("[::1]:53", Endpoint("::1", 53)),
        ("[::1]", Endpoint("::1", 53)),
        ("2001:DB8::1", Endpoint("2001:db8::1", 53)),
        ("fe80::1%eth0", Endpoint("fe80::1%eth0", 53)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert values.parse_endpoint(text) == endpoint
    assert values.parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text", ["", "dns.example", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "::1:53x", "[::1", "[1.2.3]:53", "1.2.3.4:+5"]
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        values.parse_endpoint(text)


def test_networks() -> None:
    assert values.parse_network("private") == "private"
    assert values.parse_network("any") == "any"
    assert str(values.parse_network("10.0.0.0/8")) == "10.0.0.0/8"
    assert str(values.parse_network("fd00::/8")) == "fd00::/8"
    assert str(values.parse_network("10.1.2.3")) == "10.1.2.3/32"


def test_a_network_with_host_bits_names_the_one_meant() -> None:
    with pytest.raises(ValueError, match=r'did you mean "10\.0\.0\.0/8"\?'):
        values.parse_network("10.1.2.3/8")


@pytest.mark.parametrize("text", ["", "everybody", "10.0.0.0/33", "10.0.0"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        values.parse_network(text)


def test_addresses() -> None:
    assert values.parse_address("::0") == "::"
    assert values.parse_address("[::1]") == "::1"
    with pytest.raises(ValueError, match="must be an IP address"):
        values.parse_address("localhost")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Quay.IO.", "quay.io"),
        ("registry.example:5000", "registry.example:5000"),
        ("*.azurecr.io", "*.azurecr.io"),
        ("*.*.registry.example", "*.*.registry.example"),
    ],
)
def test_registry_names(text: str, name: str) -> None:
    assert values.parse_registry(text) == name


@pytest.mark.parametrize(
    "text", ["", "10.0.0.5:5000", "quay.io/org", "a..b", "x:0", "x:99999", "*", "*.", "a.*.b", "é.io"]
)
def test_what_is_no_registry_name(text: str) -> None:
    with pytest.raises(ValueError, match="must be a host name"):
        values.parse_registry(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://Quay.io", "https://quay.io"),
        ("HTTP://10.0.0.5:5000/", "http://10.0.0.5:5000"),
        ("https://[2001:DB8::1]:5000", "https://[2001:db8::1]:5000"),
    ],
)
def test_urls(text: str, url: str) -> None:
    assert values.parse_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "quay.io",
        "ftp://quay.io",
        "https://",
        "https://quay.io/prefix",
        "https://quay.io?x",
        "https://user:secret@quay.io",
        "https://::1",
        "https://[1.2.3.4]",
        "https://quay.io:0",
    ],
)
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ValueError, match="must be an address such as"):
        values.parse_url(text)


def test_shares() -> None:
    assert values.in_bytes(Share(50.0), 1000) == 500
    assert values.in_bytes(7, 1000) == 7


@given(st.sampled_from(PARSERS), st.text() | st.text("0123456789.:[]/%smhdkMGiB*-"))
def test_parses_or_says_what_is_allowed(parse: object, text: str) -> None:
    assert callable(parse)
    try:
        parse(text)
    except ValueError as refusal:
        assert str(refusal).startswith(("must", "has host bits"))


@given(st.integers(0, 2**60))
def test_sizes_come_back(size: int) -> None:
    assert values.parse_bytes(values.show_bytes(size)) == size
    assert values.parse_rate(values.show_rate(size)) == size


@given(st.integers(1, 100_000))
def test_shares_come_back(thousandths: int) -> None:
    share = Share(thousandths / 1000)
    assert values.parse_size(values.show_size(share)) == share


@given(st.integers(0, 10**12))
def test_durations_come_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert values.parse_duration(values.show_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", 0),
        ("500Mbit", 62_500_000),
        ("500 mbit/s", 62_500_000),
        ("1.5Gbit", 187_500_000),
        ("64kbit", 8000),
        ("9bit", 1),
        ("1bit", 1),  # a fraction of a byte is not "no limit"
        ("0Mbit", 0),
        ("10MB/s", 10_000_000),
        ("10MiB", 10 * 1024**2),
    ],
)
def test_rates(text: str, rate: int) -> None:
    assert values.parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "500", "500Mb its", "500Mibit", "-1Mbit", "500Mbits", "1e3Mbit", "Mbit", "5 /s"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match='must be a rate, such as "500Mbit"'):
        values.parse_rate(text)

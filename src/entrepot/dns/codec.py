"""Messages of our own making, built with dnslib and handed out as `Reply`: the one file here that knows dnslib.

Decides what our records look like. Only dnslib's codec is used, never its server or its parser of what strangers
send; its `pack()` gives a bytearray, which ends here. Built once and patched by `wire.compose` ever after, so its
speed does not matter.
"""

import ipaddress
from typing import Final

from dnslib import AAAA, PTR, QTYPE, RD, RR, SOA, A, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

from entrepot.dns.wire import (
    AA,
    CLASS_IN,
    HEADER,
    NOERROR,
    NXDOMAIN,
    RA,
    TYPE_A,
    TYPE_AAAA,
    TYPE_HINFO,
    TYPE_PTR,
    TYPE_SOA,
    Reply,
    read_labels,
)

_MAINTAINER: Final = (b"nobody", b"invalid")  # as RFC 6303 3 has it for zones that exist nowhere else
_REFRESH, _RETRY, _EXPIRE = 3600, 1200, 604_800  # seconds; nobody transfers these zones, RFC 6303 3 gives the values
_MINIMAL: Final = b"\x07RFC8482\x00"  # the two strings of HINFO, RFC 8482 4.2


def addresses(name: bytes, rtype: int, values: tuple[str, ...], ttl: int) -> Reply:
    """A or AAAA records."""
    records = []
    for value in values:
        packed = ipaddress.ip_address(value).packed
        data = A(tuple(packed)) if rtype == TYPE_A else AAAA(tuple(packed))
        records.append(_record(name, rtype, ttl, data))
    return _build(name, records, [])


def no_data(name: bytes, zone: tuple[bytes, ...], ttl: int) -> Reply:
    """The name exists, the type does not: SOA in authority, so that it is remembered for `ttl` seconds (RFC 2308)."""
    return _build(name, [], [_authority(zone, ttl)])


def no_name(name: bytes, zone: tuple[bytes, ...], ttl: int) -> Reply:
    """NXDOMAIN, remembered for `ttl` seconds."""
    return _build(name, [], [_authority(zone, ttl)], NXDOMAIN)


def minimal_any(name: bytes, ttl: int) -> Reply:
    """The small answer to ANY that RFC 8482 asks for."""
    return _build(name, [_record(name, TYPE_HINFO, ttl, RD(_MINIMAL))], [])


def pointer(name: bytes, target: tuple[bytes, ...], ttl: int) -> Reply:
    """A PTR record."""
    return _build(name, [_record(name, TYPE_PTR, ttl, PTR(DNSLabel(target)))], [])


def failure(rcode: int) -> Reply:
    """No record, only a code; ours, so RA stays on: we would recurse for a better question."""
    return Reply(RA | rcode & 0xF, extended=rcode >> 4)


def type_name(rtype: int) -> str:
    """`A`, `HTTPS`, ...; `TYPE1234` for what has no name here (RFC 3597 5)."""
    names: dict[int, str] = QTYPE.forward
    return names.get(rtype, f"TYPE{rtype}")


def _record(name: bytes, rtype: int, ttl: int, data: object) -> object:
    return RR(DNSLabel(read_labels(name)), rtype, CLASS_IN, ttl, data)


def _authority(zone: tuple[bytes, ...], ttl: int) -> object:
    data = SOA(DNSLabel(zone), DNSLabel(_MAINTAINER), (1, _REFRESH, _RETRY, _EXPIRE, ttl))
    return RR(DNSLabel(zone), TYPE_SOA, CLASS_IN, ttl, data)


def _build(name: bytes, answers: list[object], authorities: list[object], rcode: int = NOERROR) -> Reply:
    record = DNSRecord(
        DNSHeader(id=0, bitmap=0),
        # The type in the question is thrown away with it: compose() writes the asker's.
        questions=[DNSQuestion(DNSLabel(read_labels(name)), TYPE_AAAA, CLASS_IN)],
        rr=answers,
        auth=authorities,
    )
    body = bytes(record.pack())[HEADER.size + len(name) + 4 :]
    return Reply(AA | RA | rcode, len(answers), len(authorities), body=body)

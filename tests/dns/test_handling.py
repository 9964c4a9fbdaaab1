"""What the servers and the responder share."""

from tests.dns.fakes import intercepts

from entrepot.dns.handling import Handler, Here
from entrepot.dns.responder import Responder
from entrepot.dns.settings import DnsSettings


def test_each_local_address_remembers_for_itself() -> None:
    here, there = Here((), ()), Here((), ())
    assert here.ready is not there.ready
    assert here.decisions is not there.decisions


def test_the_responder_is_what_the_servers_need() -> None:
    handler: Handler = Responder(DnsSettings(intercepts))
    assert handler.admits("127.0.0.1")
    assert handler.counters.queries == 0

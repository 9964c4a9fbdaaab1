"""The DNS responder: registry names lead to this box, every other name is forwarded and cached.

What this room does, one file each:

- `settings`    what the responder is told (`DnsSettings`), who may ask (`private_networks`, `AccessList`)
- `resolvconf`  the system's resolvers, never ourselves (`system_upstreams`)
- `wire`        the few byte operations of the fast path: queries in, replies out; no record is parsed
- `records`     an upstream's answer: is it ours, how long does it live, where are its TTLs
- `codec`       messages of our own making; the one file here that knows dnslib, and only its codec
- `zones`       special names: localhost, invalid, private reverse zones, the browsers' canary
- `answers`     the decision: a question in, a reply or "forward it" out; pure
- `cache`       answers of upstreams, bounded, their TTLs counting down
- `upstreams`   which upstream resolver is asked first, which is down, which leads back to us
- `flights`     one question on its way to upstreams, over UDP or TCP
- `forwarder`   cache, flights and their limits; identical questions fly once; loops are found here
- `interfaces`  the box's own addresses
- `sockets`     `bind`, and the local address a packet came in on
- `handling`    what the two servers share
- `udp`, `tcp`  the servers
- `counters`    what happened, as numbers
- `responder`   all of it put together: `Responder(settings).serve(sockets, stop)`, `.reconfigure(settings)`, and
                `serve_dns(settings, sockets, stop)` for callers who never reconfigure

What it does not do: it resolves nothing itself (no recursion), validates no DNSSEC, speaks no DoT or DoH, knows no
registry (whether a name is intercepted is the caller's `intercepts`), and reads neither environment nor configuration.

Rules:

1. Only names for which `intercepts` says so are answered with our address; they have A and AAAA (or NODATA) and
   nothing else, HTTPS and SVCB included: such a record would carry addresses and lead around the cache.
2. Every other name passes through as the upstream answers it.
3. Not an open resolver: who is not in `allow` gets REFUSED, never larger than what was asked, and only so many a
   second (over TCP the connection is closed). Carrier-grade NAT space (100.64.0.0/10) is not private by default:
   behind such a NAT it is the provider's other customers. Add it to `dns.allow` where it is one's own.
4. When the cache is sick and `fail_open` is on, intercepted names are forwarded too, their TTL capped to `ttl`, and
   to half a minute, so that clients come back as soon as the cache is well.
5. Nothing of the asker goes upstream: EDNS options (client subnet, cookies) end here; only the question, DO, CD, RD
   and the fact of EDNS go on. A cached answer is one answer for all.
6. Whatever arrives, the reply is a DNS message or nothing; never a traceback.
7. Names we do not ask upstream about: localhost, invalid, onion, resolver.arpa, use-application-dns.net (NXDOMAIN
   tells browsers not to move to DNS over HTTPS, which would go around the cache), loopback reverse zones; private
   reverse zones are asked of private upstreams only.

Changing `DnsSettings` means changing `config` and the supervisor too. Import from the modules, not from here: the
supervisor needs `sockets` and must not pay for dnslib.
"""

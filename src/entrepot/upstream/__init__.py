"""The outside world: names, connections, exchanges with a registry and the transfer of what it sends.

What this room does, one file each:

- `errors`     what can go wrong out there, by kind; whose fault it is decides what the engine does with it
- `resolver`   upstream names to addresses, never our own
- `fields`     which header fields may be passed on, and the mark (`Via`) by which a loop is seen
- `contexts`   what TLS trusts: the system's store and a registry's own CA files
- `redirects`  the next request of a redirect: pure
- `response`   an answer and its body
- `pool`       the connections they are made over, and what can go wrong there
- `client`     the exchanges; `watch`: the shapes in which somebody looks on
- `breaker`    whether an origin is there, as a state machine: pure
- `health`     which origins are down, known to all processes and looked after until they are back; `places`: those
               this process knows, `outages`: the note that is shared, `findings`: what a look has shown
- `quota`      what registries say of their quotas, and what is left to whom: pure
- `bandwidth`  no faster than allowed, in turns
- `transfers`  one fetch: at most one transfer per digest
- `transfer`   one blob on its way into the store, for any number of waiters
- `fetch`      its bytes: resumed, from another source, over several connections
- `source`     the shapes these talk in; `pace`, `lanes`, `windows`: when more connections help, and how they are used

What it does not do: it holds no credential longer than one exchange, writes nothing to disk outside the transfer but
the note of an outage, knows no repository, and decides nothing about access or freshness.

Rules (numbers of the design):

1. Bodies are handed on as they come, encoded as upstream sent them; a body that is cut, stalls or ends short of
   its length raises `BrokenBody` with the count of bytes handed out. (1, 2)
2. `Authorization` and `Cookie` never follow a redirect to another origin, nor come back once dropped. (2)
3. No request goes to an address that is our own, and every request carries our `Via`. (11)
4. Nothing logged or raised holds a credential or a query string: signed URLs are credentials.

Changing `ClientSettings` means changing `config` too; changing an error means changing the engine's table of
what counts as an outage.
"""

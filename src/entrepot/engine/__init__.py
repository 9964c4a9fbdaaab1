"""The decisions: a pull request in, an answer out.

1. Nothing is served before the registry has admitted this very credential to this repository (access), and a
   digest is served under a repository only if it is known to belong to it (membership). DESIGN rule 3.
2. A digest never expires; a tag is believed for `tag_ttl`, then asked for with a conditional HEAD. Rule 4.
3. What upstream refuses is passed on as upstream said it.
4. No sockets, no mitmproxy, no files: the store, the upstream client and the clock come in as arguments.

A new kind of request needs a route in `entrepot.registry.routes` and a branch in `Engine.answer`.
"""

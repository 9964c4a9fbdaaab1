"""The domain: what a container registry is, in pure values and functions.

Does: names, digests, media types, the routes of the registry API, challenges, manifests and what they
refer to, byte ranges, the wire form of errors, and the catalogue of registries worth intercepting.
Does not: any I/O but reading its own catalogue out of the package, any clock, any decision on what to
serve or to whom.

Rules of this room:

1. It imports nothing of ours but `entrepot.errors`.
2. Everything that comes from outside is parsed once, here, into a frozen value that cannot be wrong: a
   `Digest` that exists is a valid one, so it may name a file or a key without a further look.
3. A parser gives its value or raises its own error (also a `ValueError`), nothing else, whatever it is fed,
   in time linear in its input.
4. What is not understood is no reason to fail a client: `parse_target` and `parse_range` say None, and the
   caller passes the request on, or answers with the whole.

A new registry, or a new region of one, is a line in `catalogue.toml`, not code; a new name there widens
what the CA must be permitted to sign (`Catalogue.permitted_subtrees`).
"""

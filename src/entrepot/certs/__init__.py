"""Keys: the authority that signs for registries only, the leaves, and how clients come to trust it.

The rules of this room (rule 12 of the design):

1. Clients trust a root whose private key no longer exists. It has signed issuers, whose key is on disk and signs the
   leaves. The root carries critical name constraints, each issuer a slice of the same. Root and issuer, not one for
   both, because Java, by RFC 5280 6.1.1, takes no constraints from a trust anchor, only from what the anchor signed.
2. The constraints permit the catalogued DNS names and what lies below them; no IP address, e-mail address or URI.
3. Keys are EC P-256, files 0600 in directories 0700. The issuers' key has no accessor: `Authority.sign` is its use.
4. A leaf names one host, lives days, and carries a key that is neither the issuers' nor kept on disk.
5. A name comes from a ClientHello, so it is hostile until `names.checked` has passed it.
6. A trust store is changed by a plan that can be shown before it is carried out, changes nothing the second time, and
   can be undone. With another root directory nothing outside of it is read, written or run.

`names` and `profiles` are pure; `files`, `authority` and `rotation` are the CA directory; `leaves` is the memory of
issued leaves; `trust` makes the plans that `steps` carries out, with `stores` (the operating systems'), `certs_d` (the
container runtimes'), `bundles` and `rootfs`. When a certificate's profile changes, run tests/certs/test_verifiers.py
with every verifier installed.
"""

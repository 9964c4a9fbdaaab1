"""The root of our errors.

Each room derives its own from `EntrepotError`, by whose fault it is: the caller's input (also a
`ValueError`), the upstream registry's, the disk's. Messages are lower case, quote the input and say
what to do; they never hold a credential.
"""


class EntrepotError(Exception):
    """Base of everything Entrepot raises on purpose."""

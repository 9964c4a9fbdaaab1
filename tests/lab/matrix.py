"""Who gets what, in every state of upstream: the table of `test_matrix` (DESIGN rules 3 and 5).

Rows are those who ask, columns what is asked for: `login`, the answer of the token service; what anyone may read (or,
where nobody gets in without a password, whoever has one); A's own and B's own; a layer that both have, asked for by A's
repository and by B's; a layer of A's that a manifest in B's repository names and the registry does not have there.

A cell says what comes of each request for it: `served`; the status of a refusal, which is the registry's own where it
can be asked; `away`, upstream's trouble or ours to reach it. Where lists (of tags, of referrers) fare otherwise, theirs
comes after a bar; `or` is served or 401, as the registry is suspected at that moment or not. Where the token service
has refused a login, its password is shown to the registry itself.
"""

TOKENS_UP = """
                 login  public      A's     B's     both,in-A's  both,in-B's  named-in-B's
    nobody       -      served|401  401     401     401          401          401
    anonymous    200    served      401     401     401          401          401
    A            200    served      served  401     served       401          401
    A,earlier    -      served      served  401     served       401          401
    B            200    served      401     served  401          served       404
    A,wrong      401    served|401  401     401     401          401          401
    A,old        401    served|401  401     401     401          401          401
    A,expired    -      served|401  401     401     401          401          401
"""
TOKENS_SLOW = TOKENS_UP.replace("served|401", "served    ")
"""What is held and public is for all then: what waits for the registry waits for who is refused it."""
TOKENS_AWAY = """
                 login  public      A's     B's     both,in-A's  both,in-B's  named-in-B's
    nobody       -      served      401     401     401          401          401
    anonymous    200    served      401     401     401          401          401
    A            200    served      served  401     served       401          401
    A,earlier    -      served      served  401     served       401          401
    B            200    served      401     served  401          served       away
    A,wrong      401    served      401     401     401          401          401
    A,old        401    served      401     401     401          401          401
    A,expired    -      served      401     401     401          401          401
"""
NO_TOKENS = """
                 login  public      A's     B's     both,in-A's  both,in-B's  named-in-B's
    nobody       -      served|or   401     401     401          401          401
    anonymous    200    served      401     401     401          401          401
    A            200    served      served  401     served       401          401
    A,earlier    -      served      served  401     served       401          401
    B            200    served      401     served  401          served       401
    A,wrong      401    served|or   401     401     401          401          401
    A,old        401    served|or   401     401     401          401          401
    A,expired    -      served|or   401     401     401          401          401
"""
TOKENS_THROTTLED = """
                 login  public      A's     B's     both,in-A's  both,in-B's  named-in-B's
    nobody       -      served      401     401     401          401          401
    anonymous    200    served      401     401     401          401          401
    A            200    served      served  401     served       401          401
    A,earlier    -      served      served  away    served       away         away
    B            200    served      401     served  401          served       away
    A,wrong      401    served      401     401     401          401          401
    A,old        401    served      401     401     401          401          401
    A,expired    -      served      away    away    away         away         away
"""
"""Who shows what may be good hears what the registry says: that it throttles, or is in trouble."""
BASIC_UP = """
                 login  public      A's     B's     both,in-A's  both,in-B's  named-in-B's
    nobody       -      401         401     401     401          401          401
    A            -      served      served  403     served       403          403
    B            -      served      403     served  403          served       404
    A,wrong      -      401         401     401     401          401          401
    A,old        -      401         401     401     401          401          401
"""
BASIC_FRESH = """
                 login  public      A's         B's     both,in-A's  both,in-B's  named-in-B's
    nobody       -      401         401         401     401          401          401
    A            -      served      served      403     served       403          403
    B            -      served      403         served  403          served       404
    A,wrong      -      401         401         401     401          401          401
    A,old        -      served|401  served|401  401     served       401          401
"""
"""A yes of the registry's counts for `access_ttl`, and so does the one that it gave to the old password."""
BASIC_AWAY = """
                 login  public      A's     B's     both,in-A's  both,in-B's  named-in-B's
    nobody       -      401         401     401     401          401          401
    A            -      served      served  401     served       401          401
    B            -      served      401     served  401          served       away
    A,wrong      -      401         401     401     401          401          401
    A,old        -      401         401     401     401          401          401
"""

BASIC_THROTTLED = """
                 login  public      A's     B's     both,in-A's  both,in-B's  named-in-B's
    nobody       -      401         401     401     401          401          401
    A            -      served      served  away    served       away         away
    B            -      served      away    served  away         served       away
    A,wrong      -      401         401     401     401          401          401
    A,old        -      401         401     401     401          401          401
"""

type Verdicts = dict[str, dict[str, str]]
"""By row and column."""


def verdicts(table: str) -> Verdicts:
    """A table, read."""
    head, *rows = (line.split() for line in table.strip().splitlines())
    return {name: dict(zip(head, cells, strict=True)) for name, *cells in rows}

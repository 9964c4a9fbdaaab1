"""What people and programs see of a running box: the page, the metrics, the CA and how to trust it.

Decides what is shown to whom. Reads what the other processes write (records, counters, the ledger) and changes nothing;
no pull ever waits for it. What is acted on, and how, is the concern of commands.
"""

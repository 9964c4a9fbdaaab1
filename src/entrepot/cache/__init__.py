"""What is held: blobs, complete and growing, and records.

Rules of this room:

1. A blob is visible only after its digest was verified; a crash, a wrong byte or an abort never
   leaves one behind (DESIGN rule 1). A visible blob never changes.
2. At most one `Part` per digest is open for writing, over all processes that share the store.
3. Nothing has to be repaired at start: existence of the file is the commit.
4. Records are JSON objects or bytes. Nothing here can unpickle anything.
5. Bytes count before they are on disk and until they are gone, so the limits hold at any instant (DESIGN rule 10).
   The ledger that counts them is made again from the files when it is lost.
6. No HTTP status, no registry, no clock of its own: those who call bring them.

What belongs to whom, how fresh a tag is and who may read is decided in `entrepot.engine`.
"""

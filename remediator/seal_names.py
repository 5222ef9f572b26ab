"""How a seal of the journal is named outside of it: `NUMBER:DIGEST`, as the log or the metrics tell it.

On its own: `prepctl` starts in less time than the journal's modules take to import.
"""

SEAL = "[0-9]{1,9}:([0-9]{1,15}|[0-9a-f]{64})"

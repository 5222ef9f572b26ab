"""Whole years of incidents in minutes: the real intake, ledger, guardrails, planner, engine and journal in a
simulated world.

`story.py` draws what happens from a seed, `world.py` is what is true, `servers.py`, `target.py` and `persons.py` are
what the remediator and people see of it, `crew.py` is the remediator itself, `run.py` lets time pass,
`invariants.py` says what must never be. Nothing here is imported by what runs in production.
"""

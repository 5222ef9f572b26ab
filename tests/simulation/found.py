"""Stories that broke a promise once, as `prepctl simulate` printed them; each is played in every run.

A story is the fault and the way to it: `why` says what was wrong, in the remediator or in the simulation.
"""

from __future__ import annotations

from simulation.story import Fault, Incident, Sort, Story, Wrong

FOUND: dict[str, Story] = {
    "a frozen replica tells of its effect after the other one has proven it: the invariant counted from there": Story(
        200183,
        2,
        3456000.0,
        (
            Incident(number=3, sort=Sort.FOREIGN, service="ledger", at=1166128.5159998992, lasts=402.84182032245883),
            Incident(number=8, sort=Sort.CURED, service="ledger", at=1598706.6743745366, lasts=0.0),
        ),
        (
            Fault(wrong=Wrong.FREEZE, at=988473.0888960363, lasts=234.69937882891702, where=1, much=2.0),
            Fault(wrong=Wrong.CRASH, at=1166407.689871943, lasts=389.466382197317, where=1, much=7.0),
            Fault(wrong=Wrong.FREEZE, at=1168273.5397081512, lasts=33.26363928535832, where=0, much=32.0),
            Fault(wrong=Wrong.FREEZE, at=1598657.3390023145, lasts=366.07085974554263, where=0, much=49.0),
        ),
    ),
    "an old alert joined an episode after its last attempt: the invariant took it for the one that was acted on": Story(
        22,
        1,
        1400000.0,
        (
            Incident(number=71, sort=Sort.RETURNS, service="search", at=1202127.6339560929, lasts=92.95644409994046),
            Incident(number=72, sort=Sort.STALE, service="search", at=1202269.1336339416, lasts=9744.745162495057),
        ),
        (),
    ),
    "two put the pause file there: it went with the first of them, and the world took it to be there still": Story(
        29,
        2,
        10800.0,
        (Incident(number=1, sort=Sort.CURED, service="mail", at=1000.0, lasts=0.0),),
        (
            Fault(wrong=Wrong.PAUSE_FILE, at=900.0, lasts=900.0, where=1),
            Fault(wrong=Wrong.PAUSE_FILE, at=960.0, lasts=300.0, where=0),
        ),
    ),
}
"""Why -> story."""

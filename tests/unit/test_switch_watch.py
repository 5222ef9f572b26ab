"""The switch's judgement over time: by tables, and by property over any order of what may happen."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switch import watch
from switch.messages import human, pagerduty, say, slack, trial, webhook
from switch.metrics import SERIES, Metrics, View
from switch.probing import Look
from switch.statefile import decode, encode
from switch.watch import Rules, State
from tests.unit.rule_files import ROOT

RULES = Rules(accept=180.0, grace=90.0, repeat=900.0, page_after=180.0, destinations=("phone", "chat"))
T0 = 1_800_000_000.0


def told(state: State, now: float, *names: str) -> State:
    """Every delivery that is due to these is taken."""
    for delivery in watch.deliveries(state, now, RULES):
        if delivery.destination in names:
            state = watch.delivered(state, delivery, now)
    return state


def heard_at(now: float) -> State:
    return watch.hear(watch.begin(None, now, RULES), now, 0.0, RULES)


def test_a_silence_pages_at_its_acceptance_time_and_not_before() -> None:
    """To everybody, once; again after each repeat, for as long as it lasts."""
    state = watch.look(heard_at(T0), T0 + 179.9, RULES)
    assert watch.deliveries(state, T0 + 179.9, RULES) == []
    state = watch.look(state, T0 + 180, RULES)
    due = watch.deliveries(state, T0 + 180, RULES)
    assert [(each.destination, each.ending) for each in due] == [("phone", False), ("chat", False)]
    assert due[0].incident.since == T0
    state = told(state, T0 + 180, "phone", "chat")
    for later in (181, 600, 1079):
        state = watch.look(state, T0 + later, RULES)
        assert watch.deliveries(state, T0 + later, RULES) == []
    assert len(watch.deliveries(watch.look(state, T0 + 1080, RULES), T0 + 1080, RULES)) == 2


def test_a_watchdog_that_never_came_pages_too() -> None:
    """Within the acceptance time after the first start."""
    state = watch.begin(None, T0, RULES)
    assert watch.look(state, T0 + 179, RULES).incidents == ()
    assert [each.kind for each in watch.look(state, T0 + 180, RULES).incidents] == ["watchdog"]


def test_its_return_is_told_to_those_that_were_paged_and_to_nobody_else() -> None:
    """Then it is forgotten; a second silence is a second incident with a key of its own."""
    state = told(watch.look(heard_at(T0), T0 + 180, RULES), T0 + 180, "phone")
    first = state.incidents[0].id
    state = watch.look(watch.hear(state, T0 + 200, 0.0, RULES), T0 + 200, RULES)
    due = watch.deliveries(state, T0 + 200, RULES)
    assert [(each.destination, each.ending) for each in due] == [("phone", True)]
    state = watch.look(told(state, T0 + 200, "phone"), T0 + 201, RULES)
    assert state.incidents == ()
    state = watch.look(state, T0 + 380, RULES)
    assert len(state.incidents) == 1
    assert state.incidents[0].id != first


def test_an_old_word_counts_by_its_evaluation() -> None:
    """A dead Prometheus' last word, repeated by Alertmanager, does not hold the page back."""
    state = heard_at(T0)
    for age in range(0, 180, 15):
        state = watch.hear(state, T0 + age, float(age), RULES)
    assert state.heard == T0
    assert watch.look(state, T0 + 180, RULES).incidents


def test_a_restart_forgets_nothing() -> None:
    """Neither how long it has waited, nor whom it has told; what is told again is what nobody took."""
    state = told(watch.look(heard_at(T0), T0 + 180, RULES), T0 + 180, "phone")
    again = decode(encode(state).decode())
    assert again == state
    state = watch.look(watch.begin(again, T0 + 185, RULES), T0 + 185, RULES)
    assert [each.destination for each in watch.deliveries(state, T0 + 185, RULES)] == ["chat"]


def test_a_start_in_a_long_silence_gets_its_grace_once() -> None:
    """What could not be delivered to a switch that was away has its chance; a crash loop does not earn another."""
    state = watch.begin(heard_at(T0), T0 + 3600, RULES)
    assert watch.due(state, RULES) == T0 + 3690
    for start in (3620, 3640, 3689):
        state = watch.begin(state, T0 + start, RULES)
        assert watch.due(state, RULES) == T0 + 3690
    assert watch.look(state, T0 + 3690, RULES).incidents
    fresh = watch.hear(state, T0 + 3650, 5.0, RULES)
    assert fresh.grace_until is None
    assert watch.due(fresh, RULES) == T0 + 3645 + 180


def test_a_restart_early_in_a_silence_changes_nothing() -> None:
    """The rest of the acceptance time is what is left."""
    assert watch.due(watch.begin(heard_at(T0), T0 + 30, RULES), RULES) == T0 + 180


def test_a_clock_that_was_set_back_delays_nothing() -> None:
    """Times of the former life that lie ahead count as now."""
    state = watch.begin(replace(heard_at(T0), grace_until=T0 + 9999), T0 - 5000, RULES)
    assert watch.due(state, RULES) <= T0 - 5000 + 180


def test_the_probe_pages_by_itself_and_apart() -> None:
    """Only when every probe failed for so long; one good probe ends it."""
    state = watch.probed(heard_at(T0), T0, up=False)
    for second in range(15, 175, 15):
        state = watch.hear(watch.probed(state, T0 + second, up=False), T0 + second, 0.0, RULES)
        state = watch.look(state, T0 + second, RULES)
    assert state.incidents == ()
    state = watch.look(state, T0 + 180, RULES)
    assert [each.kind for each in state.incidents] == ["probe"]
    state = watch.look(watch.probed(told(state, T0 + 181, "phone"), T0 + 190, up=True), T0 + 190, RULES)
    assert [(each.destination, each.ending) for each in watch.deliveries(state, T0 + 190, RULES)] == [("phone", True)]
    quiet = replace(RULES, page_after=None)
    assert watch.look(watch.probed(heard_at(T0), T0, up=False), T0 + 170, quiet).incidents == ()


def test_a_probe_that_failed_before_a_stop_pages_nobody_after_it() -> None:
    """Only what is probed since the start counts; then it counts from the first failure on, and an open page stays."""
    state = watch.begin(watch.probed(heard_at(T0), T0, up=False), T0 + 300, RULES)
    state = watch.hear(state, T0 + 300, 0.0, RULES)
    assert watch.look(state, T0 + 300, RULES, probed=False).incidents == ()
    assert watch.look(watch.probed(state, T0 + 301, up=True), T0 + 301, RULES).incidents == ()
    again = watch.look(watch.probed(state, T0 + 301, up=False), T0 + 301, RULES)
    assert [each.kind for each in again.incidents] == ["probe"]
    assert watch.look(again, T0 + 302, RULES, probed=False).incidents == again.incidents


def test_an_incident_that_somebody_is_told_of_now_is_not_forgotten() -> None:
    """It ends while the page is under way: whoever took it hears of the end."""
    state = watch.look(heard_at(T0), T0 + 180, RULES)
    (page, _) = watch.deliveries(state, T0 + 180, RULES)
    state = watch.hear(state, T0 + 181, 0.0, RULES)
    state = watch.look(state, T0 + 181, RULES, under_way={page.incident.id})
    state = watch.delivered(state, page, T0 + 182)
    (end,) = watch.deliveries(watch.look(state, T0 + 182, RULES), T0 + 182, RULES)
    assert (end.destination, end.ending) == (page.destination, True)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "hear", "old", "restart", "take", "up", "down"]),
        st.floats(min_value=0.1, max_value=400),
    ),
    max_size=40,
)


@given(STEPS)
def test_in_whatever_order_a_silence_is_told_and_told_once(steps: list[tuple[str, float]]) -> None:
    """An open incident for the Watchdog is there exactly while it is overdue; nobody is told twice within a repeat."""
    now, state = T0, watch.begin(None, T0, RULES)
    for step, value in steps:
        match step:
            case "wait":
                now += value
            case "hear":
                state = watch.hear(state, now, 0.0, RULES)
            case "old":
                state = watch.hear(state, now, value, RULES)
            case "restart":
                saved = decode(encode(state).decode())
                assert saved == state
                state = watch.begin(saved, now, RULES)
            case "take":
                state = told(state, now, "phone", "chat")
            case _:
                state = watch.probed(state, now, up=step == "up")
        state = watch.look(state, now, RULES)
        open_ = [each for each in state.incidents if each.kind == "watchdog" and each.ended is None]
        assert len(open_) == (now >= watch.due(state, RULES))
        last = state.waiting_since if state.heard is None else state.heard
        assert watch.due(state, RULES) <= max(last + RULES.accept, now + RULES.grace)
        for delivery in watch.deliveries(state, now, RULES):
            if not delivery.ending:
                assert now - delivery.incident.told.get(delivery.destination, -1e12) >= RULES.repeat


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"version":2}',
        '{"version":1,"waiting_since":"x"}',
        "\ufffd",
        '{"version":1,"waiting_since":1}',
    ],
)
def test_a_state_that_is_none_is_none(text: str) -> None:
    """Never an exception, never half a state."""
    assert decode(text) is None


# -- what people read ---------------------------------------------------------------------------------


def test_a_page_says_what_is_wrong_and_what_to_do_first() -> None:
    """As a webhook of Alertmanager's form, as an event of PagerDuty, as a text of Slack, under one key."""
    (incident,) = watch.look(heard_at(T0), T0 + 180, RULES).incidents
    message = say(incident, "prep", T0 + 180, ending=False, heard=True)
    assert "Its last Watchdog is 3 min old" in message.description
    assert "First look" in message.description
    body = webhook(message)
    assert (body["version"], body["status"]) == ("4", "firing")
    assert body["alerts"][0]["labels"]["severity"] == "P0"
    event = pagerduty(message, "key")
    assert (event["event_action"], event["dedup_key"]) == ("trigger", incident.id)
    assert event["payload"]["severity"] == "critical"
    assert "alerts may not reach you" in slack(message)["text"]


def test_the_return_closes_the_same_incident() -> None:
    """Resolved by the same key, with how long it lasted."""
    (incident,) = watch.look(heard_at(T0), T0 + 180, RULES).incidents
    over = say(replace(incident, ended=T0 + 600), "prep", T0 + 610, ending=True, heard=True)
    assert pagerduty(over, "key") == {"routing_key": "key", "event_action": "resolve", "dedup_key": incident.id}
    assert webhook(over)["alerts"][0]["status"] == "resolved"
    assert "It was away for 10 min" in slack(over)["text"]


def test_other_pages_have_their_own_words() -> None:
    """A first Watchdog that never came, an address that does not answer, a test."""
    (never,) = watch.look(watch.begin(None, T0, RULES), T0 + 180, RULES).incidents
    assert "No Watchdog came" in say(never, "prep", T0 + 180, ending=False, heard=False).description
    state = watch.look(watch.probed(heard_at(T0), T0 - 1, up=False), T0 + 179.5, RULES)
    (probe,) = state.incidents
    message = say(probe, "prep", T0 + 180, ending=False, heard=True, probe="https://prep.example/")
    assert "https://prep.example/" in message.description
    assert "nothing is wrong" in trial("prep", T0).summary


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (90, "90 s"), (180, "3 min"), (3600, "1 h"), (3725, "1 h 2 min")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    """Short, with units."""
    assert human(seconds) == text


# -- metrics ------------------------------------------------------------------------------------------


def test_the_page_the_docs_and_the_list_have_the_same_series() -> None:
    """What rules may read is there, with its kind, in the text that Prometheus reads, and told."""
    state = watch.look(heard_at(T0), T0 + 180, RULES)
    view = View(state, watch.due(state, RULES), Look(True, 0.1), T0, saved=True)
    text = Metrics("0", RULES.destinations, lambda: view).page().decode()
    kinds = dict(re.findall(r"^# TYPE (prep_switch_\w+) (\w+)$", text, re.MULTILINE))
    kinds.pop("prep_switch_watchdog_received_created", None)
    kinds.pop("prep_switch_pages_created", None)
    assert kinds == SERIES
    page = (ROOT / "docs" / "dead-mans-switch.md").read_text()
    assert dict(re.findall(r"^\| `(prep_switch_\w+)` \| (\w+) \|", page, re.MULTILINE)) == SERIES


def test_without_a_probe_there_is_no_word_of_one() -> None:
    """A rule that reads `prep_switch_probe_up == 1` must not be held back by a probe that nobody runs."""
    state = watch.begin(None, T0, RULES)
    view = View(state, watch.due(state, RULES), None, 0.0, saved=True)
    text = Metrics("0", (), lambda: view).page().decode()
    assert "prep_switch_probe_up" not in text
    assert "prep_switch_watchdog_evaluated" not in text

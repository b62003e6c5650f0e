"""A policy is a value: it never changes, and a changed one costs what the change is."""

import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from pdp.decision import build_policy
from pdp.decision.policy import _updated
from pdp.model import (
    EVERYWHERE,
    Effect,
    Grant,
    InOrganization,
    Permission,
    Rule,
    ToOrganizationRole,
)
from tests.kit.decision.builders import ask, policy_with, rule

keys = st.integers(0, 300)
changes = st.dictionaries(keys, st.one_of(st.none(), st.integers()), max_size=400)


@given(st.dictionaries(keys, st.integers(), max_size=300), st.lists(changes, max_size=4))
@settings(deadline=None, derandomize=True, database=None)
def test_a_changed_map_is_a_dict_that_keeps_its_past(start, steps):
    expected = start
    current = Map(start)
    history = []
    for step in steps:
        history.append((current, expected))
        current = _updated(current, step)
        expected = {key: value for key, value in (expected | step).items() if value is not None}
    for found, wanted in [*history, (current, expected)]:
        assert dict(found.items()) == wanted
        assert len(found) == len(wanted)
        assert all(found.get(key) == wanted.get(key) for key in range(301))
        assert all((key in found) is (key in wanted) for key in range(301))


def test_a_change_costs_what_it_is_and_not_what_the_policy_is():
    def cost(number):
        rules = [Rule(f"r{i}", f"R{i}", Effect.ALLOW, "course:edit") for i in range(number)]
        policy = build_policy(1, [Permission("course:edit")], [], rules, [])
        best = 1.0
        for _ in range(5):
            begin = time.thread_time()
            for index in range(20):
                policy.with_changes(2, [Rule(f"n{index}", "R1", Effect.DENY, "*")])
            best = min(best, time.thread_time() - begin)
        return best

    # A policy of two hundred times the size; a rebuild would cost two hundred times as much.
    assert cost(20_000) < 20 * cost(100)


def test_a_change_of_facts_keeps_the_memo():
    policy = policy_with(rule())
    ask(policy)
    changed = [(), [Permission("a:b")], [rule("true")]]
    first, *memos = [p._memo for p in (policy, *(policy.with_changes(2, c) for c in changed))]
    assert [memo is first for memo in memos] == [True, True, False]
    assert policy.with_changes(2).revision == 2


def test_only_grants_to_organization_roles_that_hold_everywhere_are_of_the_policy():
    subject = ToOrganizationRole("org:admin")
    grant = Grant("g", "ROLE", subject, EVERYWHERE)
    policy = build_policy(1, [], [], [], [grant, Grant("h", "ROLE", subject, InOrganization("o"))])
    assert policy.grants_to("org:admin") == (grant,)
    narrower = policy.with_changes(2, [Grant("g", "ROLE", subject, InOrganization("o"))])
    assert narrower.grants_to("org:admin") == ()
    assert (
        policy.with_changes(2, [], [(Grant, ("g",)), (Grant, ("unknown",))]).grants.get("g") is None
    )


def test_threads_that_ask_while_the_policy_changes_each_see_one_policy():
    """CVE-2025-46331 (OpenFGA) and openfga#3155: a fill that raced a change survived it."""
    allowing, denying = policy_with(rule()), policy_with(rule(effect=Effect.DENY))
    current = [allowing]
    wrong = []
    stop = threading.Event()

    def reader():
        while not stop.is_set():
            policy = current[0]
            wanted = policy.rules.get("rule").effect
            if ask(policy).effect is not wanted:
                wrong.append(policy.revision)

    threads = [threading.Thread(target=reader) for _ in range(8)]
    for thread in threads:
        thread.start()
    for revision in range(2, 300):
        effect = Effect.DENY if revision % 2 else Effect.ALLOW
        current[0] = current[0].with_changes(revision, [rule(effect=effect)])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert ask(denying).effect is Effect.DENY

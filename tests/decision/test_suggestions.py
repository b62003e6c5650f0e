"""The error for an unknown name in a condition suggests the right name."""

import pytest

from pdp.decision import ConditionInvalid, compile_condition


@pytest.mark.parametrize(
    ("condition", "meant"),
    [
        ("actor.idd == 'x'", "actor.id"),
        ("user.id == 'x'", "actor.id"),
        ("Actor.id == 'x'", "actor.id"),
        ("actor.user_id == 'x'", "actor.id"),
        ("actor.org == 'x'", "actor.organization"),
        ("actor.organisation == 'x'", "actor.organization"),
        ("actor == 'x'", "actor.id"),
        ("actor.plan == 'x'", "actor.attributes.plan"),
        ("resource.owner == actor.id", "resource.attributes.owner"),
        ("resource.attributs.owner == 'x'", "resource.attributes.owner"),
        ("ressource.id == 'x'", "resource.id"),
        ("request.ip == 'x'", "context.ip"),
        ("contxt.ip == 'x'", "context.ip"),
        ("actor.id.startWith('a')", "startsWith"),
        ("hass(context.a)", "has"),
    ],
)
def test_a_name_that_is_close_is_suggested(condition: str, meant: str) -> None:
    with pytest.raises(ConditionInvalid) as caught:
        compile_condition(condition)
    assert caught.value.message.endswith(f": did you mean {meant}?")
    assert "container" not in caught.value.message


@pytest.mark.parametrize("condition", ["zzz.q", "foo(1) == 1", "q == 'x'"])
def test_of_what_is_far_from_everything_nothing_is_guessed(condition: str) -> None:
    with pytest.raises(ConditionInvalid) as caught:
        compile_condition(condition)
    assert "did you mean" not in caught.value.message

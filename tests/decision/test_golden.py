"""The golden matrix and the cases in data, through the pure core."""

import pytest

from pdp.model import Effect
from tests.decision import matrix
from tests.kit.decision.cases import Answer, ask_core, load_cases, run_case

CASES = load_cases()


def test_the_decision_matrix_is_what_is_decided():
    """Changed on purpose? `python -m tests.decision.matrix` writes it again; review the diff."""
    assert matrix.PAGE.read_text(encoding="utf-8") == matrix.render()


UNDECIDED = {
    "courses": {matrix.NO_ROLE},
    "next-courses": {matrix.NO_ROLE},
    "fastapi-courses": {matrix.NO_ROLE},
    "situations": {matrix.NO_ROLE, "EVERYBODY"},
}
"""Roles that allow nothing. The list may only shrink."""


@pytest.mark.parametrize("name", matrix.POLICIES)
def test_the_matrix_shows_an_allow_and_a_denial_of_each_permission_and_role(name: str):
    document = matrix.document_of(matrix.POLICIES[name])
    cells = list(matrix.cells_of(document))
    assert {cell.permission for cell in cells} == {
        permission.name for permission in document.permissions
    }
    assert {cell.role for cell in cells} == {
        matrix.NO_ROLE,
        *(role.name for role in document.roles),
    }
    assert matrix.undecided(cells) == UNDECIDED[name]


def test_there_are_cases():
    assert len(CASES) >= 8


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_decided_as_it_says(case):
    run_case(case, ask_core)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_finds_out_an_evaluator_that_is_wrong(case):
    """Positive control: with effects turned around, no case passes."""

    def turned_around(case, asked):
        decision = ask_core(case, asked).decision
        other = Effect.DENY if decision.effect is Effect.ALLOW else Effect.ALLOW
        return Answer(decision._replace(effect=other))

    with pytest.raises(AssertionError):
        run_case(case, turned_around)

"""Wrong compilers, of the kinds that others have shipped. The oracle finds each of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from pdp_client import lowering
from pdp_client import sqlalchemy as adapter
from pdp_client import sqlalchemy_functions as functions
from pdp_filters import TRUE, Kind, Operator, TextTest, any_of, complement, ir
from sqlalchemy.orm import aliased

from pdp.decision import operators, partial, residual
from pdp.decision.forms import Forms
from tests.kit import mutants
from tests.kit.mutants import Mutants, Mutation

MUTANTS = Mutants()
mutant = MUTANTS.mutant


def _forms(change: Callable[[Forms], Forms]) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = partial.forms_of
        patch.setattr(partial, "forms_of", lambda *a, **k: change(original(*a, **k)))

    return mutate


# --- from rules to a filter -----------------------------------------------------------------------


mutant(found_at=2)(mutants.value_first_comparisons_are_not_mirrored)


@mutant(found_at=26)
def the_opposite_of_less_is_greater(patch: pytest.MonkeyPatch) -> None:
    wrong = {**ir._OPPOSITES, Operator.LESS: Operator.GREATER}
    patch.setattr(ir, "_OPPOSITES", wrong)


mutant(found_at=1)(mutants.not_is_dropped)

mutant(found_at=2)(mutants.an_error_under_not_is_true)


@mutant(found_at=2)
def an_error_in_a_deny_rule_spares(patch: pytest.MonkeyPatch) -> None:
    def lenient(forms: Forms) -> Forms:
        try:
            return Forms(forms.true, complement(forms.true))
        except ValueError:
            return forms

    _forms(lenient)(patch)


mutant(found_at=5)(mutants.has_is_folded_to_always)


@mutant(found_at=3)
def an_absent_list_is_an_empty_one(patch: pytest.MonkeyPatch) -> None:
    def every(over: Any, body: Any) -> Any:
        return any_of(ir.absent(over), ir.every(over, body))

    for module in (operators, residual):
        patch.setattr(module, "every", every)


@mutant(found_at=0)
def exists_and_all_are_mixed_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(residual, "some", ir.every)


@mutant(found_at=0)
def and_is_or(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(residual, "all_of", any_of)


mutant(found_at=46)(mutants.a_prefix_may_be_anywhere)


@mutant(found_at=1)
def deny_rules_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partial, "_nowhere", lambda *_: TRUE)


@mutant(found_at=2)
def organizations_are_no_walls(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partial, "_within_reach", lambda *_: TRUE)


@mutant(found_at=2)
def an_unknown_organization_is_the_active_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partial, "_belongs", lambda _: TRUE)


@mutant(found_at=53)
def grants_hold_at_all_times(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partial, "holds", lambda *_: True)


@mutant(found_at=15)
def grants_to_others_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partial, "is_to_actor", lambda *_: True)


@mutant(found_at=8)
def a_resource_without_tenants_has_no_organization_to_read(patch: pytest.MonkeyPatch) -> None:
    original = residual._Residual

    def made(values: Any, *, has_no_tenants: bool, actor_is_known: bool) -> Any:
        return original(values, has_no_tenants=False, actor_is_known=actor_is_known)

    patch.setattr(residual, "_Residual", made)


# --- from a filter to SQL -------------------------------------------------------------------------


@mutant(found_at=6)
def null_is_under_a_not(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(adapter._Target, "not_true", lambda _, condition: sa.not_(condition))


@mutant(found_at=14)
def null_is_always_absent(patch: pytest.MonkeyPatch) -> None:
    original = lowering.replace

    def replaced(column: Any, **changes: Any) -> Any:
        return original(
            column, **{**changes, "null": Kind.ABSENT} if "null" in changes else changes
        )

    patch.setattr(lowering, "replace", replaced)


@mutant(found_at=2)
def the_parent_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    original = adapter.described_for
    patch.setattr(adapter, "described_for", lambda *a: replace(original(*a), parent=None))


@mutant(found_at=2)
def whoever_has_a_parent_has_none(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(adapter._Target, "has_no_parent", lambda *_: sa.true())


@mutant(found_at=4)
def an_empty_organization_is_one(patch: pytest.MonkeyPatch) -> None:
    original = lowering.Lowering._own_organization

    def own(self: Any, rows: Any, described: Any) -> Any:
        found = original(self, rows, described)
        return lowering.replace(found, blank_is_absent=False)

    patch.setattr(lowering.Lowering, "_own_organization", own)


@mutant(found_at=20)
def a_fraction_is_cut_off(patch: pytest.MonkeyPatch) -> None:
    original = adapter._number

    def number(expression: Any, value: float) -> tuple[Any, Any]:
        if abs(value) >= 2**53:  # which has none
            return original(expression, value)
        return expression, adapter._bound(int(value), sa.BigInteger())

    patch.setattr(adapter, "_number", number)


@mutant(found_at=2)
def null_is_present(patch: pytest.MonkeyPatch) -> None:
    original = adapter._Target.is_null

    def is_null(self: Any, column: Any, *, wanted: bool) -> Any:
        return original(self, column, wanted=True) if wanted else sa.true()

    patch.setattr(adapter._Target, "is_null", is_null)


def _compiled(kind: type, dialect: str, text: Callable[..., str]) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        dispatcher = kind.__dict__["_compiler_dispatcher"]
        patch.setitem(dispatcher.specs, dialect, text)

    return mutate


def _like(element: Any, compiler: Any, **options: Any) -> str:
    column, pattern, _ = element.clauses
    return (
        f"({compiler.process(column, **options)} LIKE"
        f" {compiler.process(pattern, **options)} ESCAPE '\\')"
    )


def _plain(element: Any, compiler: Any, **options: Any) -> str:
    return str(compiler.process(next(iter(element.clauses)), **options))


@mutant(found_at=11)
def like_folds_case_on_sqlite(patch: pytest.MonkeyPatch) -> None:
    for kind in functions.MATCHES.values():
        _compiled(kind, "sqlite", _like)(patch)


@mutant(found_at=41)
def the_collation_of_a_column_counts(patch: pytest.MonkeyPatch) -> None:
    _compiled(functions.Bytes, "sqlite", _plain)(patch)


@mutant(found_at=10)
def like_is_not_escaped(patch: pytest.MonkeyPatch) -> None:
    original = functions.like_pattern

    def unescaped(test: TextTest, text: str) -> str:
        return original(test, text).replace("\\%", "%").replace("\\_", "_")

    patch.setattr(functions, "like_pattern", unescaped)


@mutant(found_at=2)
def relations_are_joined(patch: pytest.MonkeyPatch) -> None:
    original = adapter._Target.exists

    def exists(self: Any, rows: Any, relation: Any, condition: Any, *, wanted: bool) -> Any:
        if not wanted or not relation.property.uselist:
            return original(self, rows, relation, condition, wanted=wanted)
        related = aliased(relation.property.mapper.class_)
        pairs = relation.property.local_remote_pairs
        joined = (getattr(rows, one.key) == getattr(related, other.key) for one, other in pairs)
        return sa.and_(*joined, condition(related))

    patch.setattr(adapter._Target, "exists", exists)

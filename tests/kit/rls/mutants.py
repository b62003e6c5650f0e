"""Wrong compilers and wrong migrations, of the kinds that others have shipped. The oracle finds
each of them."""

from dataclasses import replace
from typing import Any

import pytest
from pdp_filters import TRUE, Operator, TextTest
from pdp_filters.ir import absent, any_of

from pdp.decision import operators, residual
from pdp.rls import lowering, migration, postgresql, rules
from pdp.rls.sql import Sql, literal, sql
from tests.kit import mutants
from tests.kit.mutants import Mutants, Mutation
from tests.kit.rls import database

MUTANTS = Mutants()
mutant = MUTANTS.mutant


def _text(old: str, new: str) -> Mutation:
    """A migration that says something else."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = migration.make_migration

        def made(*arguments: Any) -> Any:
            made = original(*arguments)
            return replace(made, text=made.text.replace(old, new))

        patch.setattr(database, "make_migration", made)

    return mutate


def texted(name: str, old: str, new: str, *, found_at: int) -> None:
    MUTANTS[name] = (_text(old, new), found_at)


# --- the migration --------------------------------------------------------------------------------

texted("force_is_missing", " FORCE ROW", " NO FORCE ROW", found_at=0)
texted("enable_is_missing", " ENABLE ROW", " DISABLE ROW", found_at=0)
texted("deny_rules_are_permissive", "AS RESTRICTIVE", "AS PERMISSIVE", found_at=3)
texted("disabled_users_have_rows", "AND u.status = 'active'", "", found_at=11)
texted(
    "revoked_sessions_have_rows",
    "r.session_id = actor ->> 'session'",
    "r.session_id = actor ->> 'none'",
    found_at=13,
)
texted("others_are_members", "AND (active IS NULL OR m.role IS NOT NULL)", "", found_at=1)
texted("grants_do_not_begin", "(not_before IS NULL OR", "(true OR", found_at=7)
texted("grants_do_not_end", "(expires_at IS NULL OR", "(true OR", found_at=45)
texted(
    "grants_to_others_count",
    "WHERE g.user_id = actor.user_id AND g.resource_type",
    "WHERE g.resource_type",
    found_at=15,
)
texted(
    "a_role_elsewhere_is_held_here",
    "AND (g.organization_id IS NULL OR g.organization_id = organization)",
    "",
    found_at=15,
)
texted(
    "texts_of_the_actor_are_numbers",
    "CASE WHEN jsonb_typeof(value) = 'number' THEN",
    "CASE WHEN value #>> '{}' ~ '^[0-9.]+$' THEN",
    found_at=17,
)
texted(
    "null_of_the_actor_is_absent",
    "coalesce(jsonb_typeof(value), ",
    "coalesce(nullif(jsonb_typeof(value), 'null'), ",
    found_at=42,
)


@mutant(found_at=0)
def what_is_written_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    original = migration._table

    def table(*arguments: Any) -> str:
        lines = original(*arguments).split("WITH CHECK (")
        return "WITH CHECK (true OR ".join(lines)

    patch.setattr(migration, "_table", table)


@mutant(found_at=3)
def create_takes_the_permission_of_read(patch: pytest.MonkeyPatch) -> None:
    wrong = {"read": "SELECT", "create": "INSERT", "update": "UPDATE", "delete": "DELETE"}
    wrong["read"], wrong["create"] = wrong["create"], wrong["read"]
    patch.setattr(migration, "COMMANDS", wrong)


# --- from rules to filters ------------------------------------------------------------------------


@mutant(found_at=6)
def deny_rules_are_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "_nowhere", lambda *_: TRUE)


@mutant(found_at=28)
def deny_rules_elsewhere_are_dropped(patch: pytest.MonkeyPatch) -> None:
    original = lowering.ActorLowering.condition

    def condition(self: Any, node: Any, levels: Any) -> Sql:
        if isinstance(node, rules.HoldsNothingElsewhere):
            return Sql(("(1 = 1)",))
        return original(self, node, levels)

    patch.setattr(lowering.ActorLowering, "condition", condition)


@mutant(found_at=3)
def organizations_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    original = lowering.ActorLowering._organization_is

    def organization_is(self: Any, level: Any, operator: str, other: Any) -> Sql:
        is_own = "actor_organization" in other.text
        return Sql(("(1 = 1)",)) if is_own else original(self, level, operator, other)

    patch.setattr(lowering.ActorLowering, "_organization_is", organization_is)


@mutant(found_at=24)
def an_unknown_organization_is_the_active_one(patch: pytest.MonkeyPatch) -> None:
    original = rules._where
    patch.setattr(rules, "_where", lambda roles, _, alone: original(roles, True, alone))


@mutant(found_at=1)
def a_role_on_one_resource_is_held_widely(patch: pytest.MonkeyPatch) -> None:
    original = lowering.ActorLowering._granted

    def granted(self: Any, level: Any, by: str, roles: Any, *, negated: bool) -> Sql:
        if by == "granted_to_role" and not negated:
            return Sql(("(1 = 1)",))
        return original(self, level, by, roles, negated=negated)

    patch.setattr(lowering.ActorLowering, "_granted", granted)


mutant(found_at=3)(mutants.value_first_comparisons_are_not_mirrored)

mutant(found_at=6)(mutants.not_is_dropped)

mutant(found_at=1)(mutants.an_error_under_not_is_true)

mutant(found_at=11)(mutants.has_is_folded_to_always)


@mutant(found_at=0)
def an_absent_list_is_an_empty_one(patch: pytest.MonkeyPatch) -> None:
    original = residual.every
    for module in (operators, residual):
        patch.setattr(
            module, "every", lambda over, body: any_of(absent(over), original(over, body))
        )


mutant(found_at=284)(mutants.a_prefix_may_be_anywhere)

# --- from filters to SQL --------------------------------------------------------------------------


@mutant(found_at=2)
def null_is_under_a_not(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        postgresql.PostgreSQL, "not_true", lambda _, condition: sql("(NOT ", condition, ")")
    )


@mutant(found_at=7)
def like_is_not_escaped(patch: pytest.MonkeyPatch) -> None:
    def match(self: Any, test: TextTest, column: Any, text: str, *, negated: bool) -> Sql:
        before = "" if test is TextTest.PREFIX else "%"
        after = "" if test is TextTest.SUFFIX else "%"
        pattern = literal(before + text.replace("\\", "\\\\") + after)
        found = sql("(", column.expression.sql, f" LIKE {pattern} ESCAPE '\\')")
        return sql("(NOT ", found, ")") if negated else found

    patch.setattr(postgresql.PostgreSQL, "match", match)


@mutant(found_at=3)
def a_parent_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    original = lowering.describe
    for module in (lowering, postgresql):
        patch.setattr(module, "describe", lambda *one: replace(original(*one), parent=None))


@mutant(found_at=3)
def what_has_a_parent_has_none(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(postgresql.PostgreSQL, "has_no_parent", lambda *_: Sql(("(1 = 1)",)))


@mutant(found_at=36)
def a_fraction_is_cut_off(patch: pytest.MonkeyPatch) -> None:
    original = postgresql.PostgreSQL.compare

    def compare(self: Any, operator: Operator, column: Any, value: Any) -> Sql:
        cut = float(int(value)) if isinstance(value, float) else value
        return original(self, operator, column, cut)

    patch.setattr(postgresql.PostgreSQL, "compare", compare)


@mutant(found_at=0)
def texts_are_ordered_by_a_language(patch: pytest.MonkeyPatch) -> None:
    def as_text(column: Any, _: Operator) -> Sql:
        return sql("lower(", column.expression.sql, ")")

    for module in (lowering, postgresql):
        patch.setattr(module, "as_text", as_text)


@mutant(found_at=23)
def an_element_of_a_list_is_another(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(lowering._ARRAYS, lowering.Kind.TEXT, ("texts_in", "varchar(1)[]"))

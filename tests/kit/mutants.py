"""Wrong compilers of filters, of the kinds that others have shipped: an oracle must find each."""

from collections.abc import Callable

import pytest
from pdp_filters import TRUE, Operator, TextTest, complement

from pdp.decision import operators, residual
from pdp.decision.forms import Forms

Mutation = Callable[[pytest.MonkeyPatch], None]


class Mutants(dict[str, tuple[Mutation, int]]):
    """By name: what to change, and a seed that is known to find it, to look there first."""

    def mutant(self, *, found_at: int) -> Callable[[Mutation], Mutation]:
        """Adds a mutation."""

        def add(mutation: Mutation) -> Mutation:
            self[mutation.__name__] = (mutation, found_at)
            return mutation

        return add


def value_first_comparisons_are_not_mirrored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Operator, "mirrored", property(lambda self: self))


def not_is_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Forms, "negated", lambda self: self)


def an_error_under_not_is_true(patch: pytest.MonkeyPatch) -> None:
    def negated(self: Forms) -> Forms:
        try:
            return Forms(complement(self.true), self.true)
        except ValueError:
            return Forms(self.false, self.true)

    patch.setattr(Forms, "negated", negated)


def has_is_folded_to_always(patch: pytest.MonkeyPatch) -> None:
    for module in (operators, residual):
        patch.setattr(module, "present", lambda _: TRUE)


def a_prefix_may_be_anywhere(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(operators.TEXT_TESTS, "startsWith", TextTest.CONTAINS)

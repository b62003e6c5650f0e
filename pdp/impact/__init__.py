"""The effects of a candidate policy: on all users, on past decisions, and on current decisions.

In: two worlds (`effective_differences`), or a candidate policy and decisions.
Out: counts and examples of answers that differ.

Never: decides for a caller; answers by code of its own. Every compared answer is one of
`pdp.decision.decide`.
"""

from pdp.impact.effective import Cell, Example, Impact, effective_differences
from pdp.impact.inputs import inputs_of
from pdp.impact.redaction import Redaction
from pdp.impact.replay import Flips, Replay, replay
from pdp.impact.shadow import Shadow, policy_of

__all__ = [
    "Cell",
    "Example",
    "Flips",
    "Impact",
    "Redaction",
    "Replay",
    "Shadow",
    "effective_differences",
    "inputs_of",
    "policy_of",
    "replay",
]

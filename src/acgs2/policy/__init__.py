"""What may be said and done: constitution, Cedar policies, impact, verdicts, deliberation, halts. Pure."""

from acgs2.policy import amendment, deliberation
from acgs2.policy.amendment import Amendment, Signature
from acgs2.policy.bundle import PLATFORM, Bundle, default_platform, groups_of
from acgs2.policy.constitution import Constitution, Group, founded, load, of, parse
from acgs2.policy.deliberation import Approval, Final, Held, decide
from acgs2.policy.halts import Halt, Halts
from acgs2.policy.judge import Judge
from acgs2.policy.question import AgentFacts, Question, TopicFacts
from acgs2.policy.verdict import BundleVersion, Decision, Factor, Hold, Verdict

__all__ = [
    "PLATFORM",
    "AgentFacts",
    "Amendment",
    "Approval",
    "Bundle",
    "BundleVersion",
    "Constitution",
    "Decision",
    "Factor",
    "Final",
    "Group",
    "Halt",
    "Halts",
    "Held",
    "Hold",
    "Judge",
    "Question",
    "Signature",
    "TopicFacts",
    "Verdict",
    "amendment",
    "decide",
    "default_platform",
    "deliberation",
    "founded",
    "groups_of",
    "load",
    "of",
    "parse",
]

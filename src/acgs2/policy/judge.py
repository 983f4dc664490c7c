"""The judge: constitution, platform policies and tenants' policies together, asked about one message."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from acgs2.policy.bundle import PLATFORM, Bundle
from acgs2.policy.cedar import Asked, Panel, Request, ask, request_of
from acgs2.policy.constitution import Constitution
from acgs2.policy.features import WHOLE
from acgs2.policy.impact import score
from acgs2.policy.question import Question
from acgs2.policy.verdict import BundleVersion, Decision, Hold, Verdict

__all__ = ["Judge"]

_CACHED = 65_536
_PANELS = 4096
#: An entry of the metadata that policies ask for has so many characters at most.
_LONGEST = 1000
_ENCODER = msgspec.json.Encoder(order="sorted")


class _Case(NamedTuple):
    """What a verdict depends on besides the constitution: the cache knows nothing else."""

    asked: Asked
    bundles: tuple[Bundle, ...]
    problem: str


class _Finding(NamedTuple):
    decision: Decision
    policies: tuple[str, ...]
    reasons: tuple[str, ...]
    holds: tuple[Hold, ...]
    versions: tuple[BundleVersion, ...]


class Judge:
    """Judges messages. Immutable; what differs is another judge.

    Every owner's policies are asked by themselves, and all must agree: the platform's, the sender's tenant's
    and the receiver's tenant's. So a tenant can only narrow, and only for its own agents. A tenant without
    policies of its own leaves it to the platform.
    """

    def __init__(
        self,
        constitution: Constitution,
        platform: Bundle,
        tenants: Mapping[str, Bundle] | None = None,
        *,
        cached: int = _CACHED,
    ) -> None:
        """Take what is in force.

        Args:
            constitution: the constitution.
            platform: the platform's policies.
            tenants: id of a tenant to its policies; what cannot be used is `Bundle.unusable`.
            cached: how many verdicts are kept at most.
        """
        self.constitution = constitution
        self.platform = platform
        self.tenants: Mapping[str, Bundle] = dict(tenants or {})
        self._most = cached
        self._panel = lru_cache(maxsize=_PANELS)(Panel)
        self._decide = lru_cache(maxsize=cached)(self._find)

    def knowing(self, tenants: Mapping[str, Bundle | None]) -> Judge:
        """Return a judge that knows other policies of some tenants; None for those that have none any more.

        It shares the caches with this one, since cases name the policies that they were judged by.
        """
        made = Judge.__new__(Judge)
        made.__dict__.update(self.__dict__)
        changed = {**self.tenants, **tenants}
        made.tenants = {tenant: bundle for tenant, bundle in changed.items() if bundle is not None}
        return made

    @property
    def cached(self) -> int:
        """Return how many verdicts are kept now."""
        return self._decide.cache_info().currsize

    def forgetting(self) -> Judge:
        """Return the same judge with nothing cached."""
        return Judge(self.constitution, self.platform, self.tenants, cached=self._most)

    def judge(self, question: Question) -> Verdict:
        """Return the verdict on a message."""
        impact, factors = score(self.constitution.impact, question)
        bundles = self._bundles(question)
        metadata, problem = _metadata(question.metadata, bundles)
        asked = Asked(
            question.sender,
            question.receiver,
            question.message_type,
            question.priority,
            impact,
            question.zone,
            metadata,
        )
        found = self._decide(_Case(asked, bundles, problem))
        return Verdict(
            decision=found.decision,
            policies=found.policies,
            reasons=found.reasons,
            impact=impact,
            factors=factors,
            holds=found.holds,
            deadline_s=self.constitution.deliberation.deadline_s if found.holds else 0,
            constitution_version=self.constitution.version,
            constitution_digest=self.constitution.digest,
            policies_version=found.versions,
        )

    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Return who is in which group now, by the names that holds have."""
        found = {name: group.members for name, group in self.constitution.groups.items()}
        for bundle in self.tenants.values():
            found |= {name: hold.members for name, hold in bundle.own_holds.items()}
        return found

    def _bundles(self, question: Question) -> tuple[Bundle, ...]:
        owners = dict.fromkeys((question.sender.tenant, question.receiver.tenant))
        return (self.platform, *(self.tenants[owner] for owner in owners if owner in self.tenants))

    def _find(self, case: _Case) -> _Finding:
        bundles = case.bundles
        versions = tuple(BundleVersion(each.owner, each.version, each.digest) for each in bundles)
        problem = next(
            (f"the policies of {_called(b)} cannot be used: {b.broken}" for b in bundles if b.broken),
            case.problem,
        )
        if not problem:
            try:
                request = request_of(case.asked)
            except ValueError:  # what is known of it contradicts itself, or is no text
                problem = "the message cannot be put to the policies"
            else:
                return self._ruled(case, request, versions)
        return _Finding(Decision.DENY, (), (f"policy-error: {problem}",), (), versions)

    def _ruled(self, case: _Case, request: Request, versions: tuple[BundleVersion, ...]) -> _Finding:
        bundles = case.bundles
        # The platform's and the first tenant's together cost one question less; a second tenant's are apart.
        panels = (self._panel(bundles[:2]), *(self._panel((each,)) for each in bundles[2:]))
        ruling = ask(panels, request)
        reasons = [policy.sentence for policy in ruling.by]
        reasons += [f"No policy of {_called(bundle)} permits it." for bundle in ruling.silent]
        if ruling.failed:
            names = ", ".join(policy.name for policy in ruling.failed)
            reasons.append(f"policy-error: what cannot be worked out denies: {names}.")
        decision, holds = ruling.decision, {p.hold.group: p.hold for p in ruling.by if p.hold}
        threshold = self.constitution.thresholds.impact
        if decision is not Decision.DENY and case.asked.impact >= threshold:
            decision = Decision.DELIBERATE
            reasons.append(f"Its impact of {case.asked.impact / WHOLE:g} reaches {threshold / WHOLE:g}.")
            holds |= self._default_hold()
        decided = ruling.by or ruling.failed
        return _Finding(
            decision, tuple(p.name for p in decided), tuple(reasons), tuple(holds.values()), versions
        )

    def _default_hold(self) -> dict[str, Hold]:
        name = self.constitution.deliberation.group
        group = self.constitution.groups[name]
        return {name: Hold(name, group.approvals, group.members)}


def _called(bundle: Bundle) -> str:
    return "the platform" if bundle.owner == PLATFORM else f"the tenant {bundle.owner}"


def _metadata(metadata: Any, bundles: tuple[Bundle, ...]) -> tuple[tuple[tuple[str, str], ...], str]:
    """Return the entries that some policy asks for, and why they cannot be put to it; else nothing.

    What is no text is put as its JSON: an entry does not vanish because of how it is written.
    """
    if not metadata or not isinstance(metadata, dict):
        return (), ""
    found: list[tuple[str, str]] = []
    for key in sorted({key for bundle in bundles for key in bundle.metadata_keys}):
        if key not in metadata:
            continue
        value = metadata[key]
        try:
            text = value if isinstance(value, str) else _ENCODER.encode(value).decode()
        except (ValueError, TypeError, RecursionError):
            return (), f"the entry {key} of the metadata is not JSON"
        if len(text) > _LONGEST:
            return (), f"the entry {key} of the metadata has more than {_LONGEST} characters"
        found.append((key, text))
    return tuple(found), ""

"""Test cases of policies: messages in YAML, and what shall come of them. docs/policies.md shows the form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic import model_validator as check

from acgs2.errors import InputError, PolicyError
from acgs2.policy.bundle import PLATFORM, Bundle, default_platform
from acgs2.policy.constitution import Constitution, Group, load
from acgs2.policy.documents import Lines, explained, read
from acgs2.policy.judge import Judge
from acgs2.policy.question import AgentFacts, Question, TopicFacts
from acgs2.policy.verdict import Verdict
from acgs2.topology.load import line_of

__all__ = ["Case", "Outcome", "Suite", "found_in", "read_policies"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tenant(_Section):
    """A tenant of a suite; its id is its name unless another is given."""

    id: str = ""
    policies: str | None = None
    groups: Mapping[str, Group] = Field(default_factory=dict)


class Agent(_Section):
    """An agent of a suite."""

    tenant: str
    id: str = ""
    zone: str = "eu"
    status: Literal["active", "halted", "retired"] = "active"
    capabilities: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ()


class Expected(_Section):
    """What shall come of a message; what is not named is not looked at."""

    decision: Literal["allow", "deliberate", "deny"] | None = None
    policies: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    impact: int | None = Field(default=None, ge=0, le=1000)

    @check(mode="after")
    def _something(self) -> Self:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("one of decision, policies, groups, impact")
        return self

    @check(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"decision": value} if isinstance(value, str) else value


class Case(_Section):
    """One message: from an agent to another, or to a topic of the sender's tenant or of one that is named."""

    name: str = Field(min_length=1)
    sender: str = Field(alias="from")
    to: str | None = None
    topic: str | None = None
    topic_of: str | None = None
    message_type: str = "note"
    priority: int = Field(default=1, strict=True, ge=0, le=3)
    zone: str | None = None
    content: str = ""
    payload: Any = Field(default_factory=dict)
    metadata: Mapping[str, Any] = Field(default_factory=dict)
    expect: Expected | None = None

    @check(mode="after")
    def _somewhere(self) -> Self:
        if (self.to is None) == (self.topic is None):
            raise ValueError("either to or topic")
        return self


class Document(_Section):
    """A file of test cases; paths are relative to it."""

    policies: str | None = None
    constitution: str | None = None
    tenants: Mapping[str, Tenant] = Field(default_factory=dict)
    agents: Mapping[str, Agent]
    cases: tuple[Case, ...] = Field(min_length=1)


class Outcome:
    """What came of one case, and what is not as expected."""

    def __init__(self, case: Case, line: int, verdict: Verdict, wrong: tuple[str, ...]) -> None:
        """Take what was found; `wrong` are sentences, none where all is as expected."""
        self.case, self.line, self.verdict, self.wrong = case, line, verdict, wrong


class Suite:
    """A file of test cases, with the policies and the constitution that it names."""

    def __init__(self, path: Path, document: Document, lines: Lines) -> None:
        """Take what `load` has read."""
        self.path, self.document, self._lines = path, document, lines
        named = document.constitution
        self.constitution: Constitution = load(path.parent / named if named else None)
        self._ids = {name: tenant.id or name for name, tenant in document.tenants.items()}
        for number, case in enumerate(document.cases):
            self._known(case, number)

    @classmethod
    def load(cls, path: Path) -> Suite:
        """Read a file of test cases.

        Raises:
            InputError: it cannot be read or is none; the message names the line.
        """
        text = _text(path)
        raw, lines = read(text, str(path), InputError, "cases-invalid")
        try:
            return cls(path, Document.model_validate(raw), lines)
        except ValidationError as error:
            raise explained(error, str(path), lines, _known_keys(), InputError, "cases-invalid") from error

    def judge(self, platform: str | None = None, tenants: Mapping[str, str] | None = None) -> Judge:
        """Return the judge of the suite.

        Args:
            platform: the platform's policies instead of those that the suite names.
            tenants: name of a tenant to its policies instead of those that the suite names.

        Raises:
            PolicyError: some policies cannot be taken.
        """
        shared, named = self.constitution.groups, self.document.policies
        if platform is None:
            platform = read_policies(self.path.parent / named) if named else default_platform()
        bundles = {}
        for name, tenant in self.document.tenants.items():
            text = (tenants or {}).get(name)
            if text is None and tenant.policies:
                text = read_policies(self.path.parent / tenant.policies)
            if text is not None:
                owner = self._ids[name]
                bundles[owner] = Bundle.load(
                    text, owner=owner, groups=tenant.groups, shared=shared, source=tenant.policies or name
                )
        bundle = Bundle.load(platform, owner=PLATFORM, shared=shared, source=named or "platform.cedar")
        return Judge(self.constitution, bundle, bundles)

    def question(self, case: Case) -> Question:
        """Return the message of a case as facts."""
        sender = self._agent(case.sender)
        if case.to is not None:
            receiver: AgentFacts | TopicFacts = self._agent(case.to)
        else:
            tenant = self._ids.get(case.topic_of, case.topic_of) if case.topic_of else sender.tenant
            receiver = TopicFacts(name=case.topic or "", tenant=tenant, zone=sender.zone)
        return Question(
            sender=sender,
            receiver=receiver,
            message_type=case.message_type,
            zone=case.zone or sender.zone,
            priority=case.priority,
            content=case.content,
            payload=case.payload,
            metadata=dict(case.metadata),
        )

    def run(self, judge: Judge) -> tuple[Outcome, ...]:
        """Return what comes of every case."""
        found = []
        for number, case in enumerate(self.document.cases):
            verdict = judge.judge(self.question(case))
            found.append(
                Outcome(case, line_of(("cases", number), self._lines), verdict, self._wrong(case, verdict))
            )
        return tuple(found)

    def _agent(self, name: str) -> AgentFacts:
        agent = self.document.agents[name]
        return AgentFacts(
            id=agent.id or name,
            tenant=self._ids.get(agent.tenant, agent.tenant),
            zone=agent.zone,
            name=name,
            status=agent.status,
            capabilities=frozenset(agent.capabilities),
            accepts=frozenset(self._ids.get(each, each) for each in agent.accepts),
        )

    def _known(self, case: Case, number: int) -> None:
        for key, name in (("from", case.sender), ("to", case.to)):
            if name is not None and name not in self.document.agents:
                line = line_of(("cases", number, key), self._lines)
                raise InputError(
                    "cases-invalid",
                    f"{self.path}:{line}: there is no agent {name}.",
                    hint=f"Known: {', '.join(self.document.agents)}.",
                    file=str(self.path),
                    line=line,
                )

    def _wrong(self, case: Case, verdict: Verdict) -> tuple[str, ...]:
        """Return what is not as expected, in sentences; in them tenants have their names of the suite."""
        expect = case.expect
        if expect is None:
            return ()
        names = {id: name for name, id in self._ids.items()}

        def named(qualified: str) -> str:
            owner, slash, rest = qualified.partition("/")
            return f"{names.get(owner, owner)}{slash}{rest}"

        wanted_and_found = {
            "decision": (expect.decision, verdict.decision.value),
            "policies": (_sorted(expect.policies), sorted(map(named, verdict.policies))),
            "groups": (_sorted(expect.groups), sorted(named(hold.group) for hold in verdict.holds)),
            "impact": (expect.impact, verdict.impact),
        }
        return tuple(
            f"{what} is {found}, not {wanted}"
            for what, (wanted, found) in wanted_and_found.items()
            if wanted is not None and wanted != found
        )


def found_in(path: Path) -> tuple[Path, ...]:
    """Return the files of test cases that a path stands for: itself, or every *.test.yaml below it.

    Raises:
        InputError: there is none (`cases-missing`).
    """
    if path.is_dir():
        found = tuple(sorted(path.rglob("*.test.yaml")))
        if not found:
            raise InputError("cases-missing", f"No *.test.yaml is in {path}.", hint="Name a file of cases.")
        return found
    return (path,)


def read_policies(path: Path) -> str:
    """Return the text of a file of policies.

    Raises:
        PolicyError: it cannot be read (`policies-unreadable`).
    """
    try:
        return _text(path)
    except InputError as error:
        raise PolicyError("policies-unreadable", error.message, hint="Name a file of policies.") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError("file-unreadable", f"{path} cannot be read: {why}.", hint="Is it there?") from error


def _sorted(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else sorted(values)


def _known_keys() -> set[str]:
    models = (Document, Case, Expected, Agent, Tenant, Group)
    return {field.alias or name for model in models for name, field in model.model_fields.items()}

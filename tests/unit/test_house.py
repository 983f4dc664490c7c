"""The house: errors, declarations, SQL templates, the command line's first answer."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import resources

import pytest
from typer.testing import CliRunner

import acgs2
from acgs2 import errors
from acgs2.cli import COMMANDS, app
from acgs2.errors import AcgsError, EntityError
from acgs2.model import entities
from acgs2.model.entity import parse
from acgs2.store.compile import compile_dispatch, compile_entity
from acgs2.store.templates import scripts


def test_every_error_is_in_the_tree_and_in_its_drawing() -> None:
    for name in [n for n in errors.__all__ if n != "PROBLEM_TYPES"]:
        assert issubclass(getattr(errors, name), AcgsError)
        assert name in (errors.__doc__ or "")


def test_an_error_is_plain_values() -> None:
    error = AcgsError("some-thing", "It broke.", hint="Mend it.", port=1)
    assert error.as_dict() == {
        "error": "some-thing",
        "message": "It broke.",
        "hint": "Mend it.",
        "context": {"port": 1},
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("rule: latest", "rule: union"), "cannot merge"),
        (("strategy: merge", "strategy: newest"), "newest"),
        (("type: text", "type: poem"), "poem"),
        (("max: 9", "maximum: 9"), "maximum"),
        (("entity: thing\n", ""), "entity"),
        (("strategy: merge", "strategy: versioned"), "version"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(change: tuple[str, str], says: str) -> None:
    text = "entity: thing\npath: things\nresidency: zone\nscope: tenant\nstrategy: merge\nfields:\n  a: {type: text, rule: latest, max: 9}\n"
    assert parse(text).name == "thing"
    with pytest.raises(EntityError, match=says):
        parse(text.replace(*change))


def test_every_template_is_filled() -> None:
    for entity in entities().values():
        assert not re.search(r"\{\{|\}\}", compile_entity(entity))
    assert not re.search(r"\{\{|\}\}", compile_dispatch(entities().values()))


def test_migrations_are_numbered_without_gaps() -> None:
    assert [int(name[:4]) for name, _ in scripts("migrations")] == list(
        range(1, len(scripts("migrations")) + 1)
    )


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    code = "import sys; sys.argv=['acgs2','--help']\nfrom acgs2.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('psycopg','litestar','httpx','pydantic','opentelemetry','acgs2.client') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip().endswith("[]")
    for command in COMMANDS:
        assert command in done.stdout


def test_a_command_is_itself_whatever_the_program_was_called_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["pytest"])
    assert "--suite" in CliRunner(env={"COLUMNS": "120"}).invoke(app, ["drill", "--help"]).stdout


def test_the_sdk_is_typed_and_loads_no_server() -> None:
    code = "import sys, acgs2\nprint('httpx' in sys.modules, [getattr(acgs2, n) for n in acgs2.__all__] and "
    code += "[m for m in ('psycopg','litestar','pydantic','granian','joserfc') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False []"
    assert (resources.files("acgs2") / "py.typed").is_file()
    with pytest.raises(AttributeError):
        acgs2.Nothing  # noqa: B018

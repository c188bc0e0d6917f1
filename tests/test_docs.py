"""The examples of docs/extending.md, run as they stand."""

import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, bytes_of

import strategies
from huscf_flwr.cli import main
from strategies.central_generator import CentralGenerator
from strategies.returned import CHECKS

TEXT = (PROJECT / "docs" / "extending.md").read_text()
SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
LONGEST = {"A procedure": 80}
"""Lines of code in an example at most, by section, without the empty ones; 40 elsewhere."""


def _title(section: str) -> str:
    return section.splitlines()[0]


def _save_examples(section: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a section's files, and let them be found there."""
    examples = re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert examples
    for code in examples:
        lines = [line for line in code.splitlines() if line]
        assert len(lines) <= LONGEST.get(_title(section), 40)
        (folder / lines[0].removeprefix("# ")).write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize("section", SECTIONS, ids=_title)
def test_an_example_runs_as_it_stands(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save_examples(section, tmp_path, monkeypatch)
    commands = re.findall(r"^    (huscf|python) (.*)", section, flags=re.MULTILINE)
    assert commands
    for program, arguments in commands:
        if program == "huscf":
            assert main(shlex.split(arguments)) == 0
        else:
            monkeypatch.setattr(sys, "argv", [arguments])
            exec(compile(Path(arguments).read_text(), arguments, "exec"), {"__name__": "__main__"})


def test_what_may_be_overridden_is_what_is_checked() -> None:
    """The table's methods have these parameters; nearly all return something that is looked at."""
    rows = re.findall(r"^\| `(\w+)\.(\w+)\((.*?)\)`", TEXT, flags=re.MULTILINE)
    classes = {kind.__name__: kind for kind in (*vars(strategies).values(), CentralGenerator)
               if isinstance(kind, type)}  # fmt: skip
    for name, method, parameters in rows:
        signature = inspect.signature(getattr(classes[name], method))
        assert ["self", *re.findall(r"\w+", parameters)] == list(signature.parameters)
        if method in CHECKS:
            taken = list(inspect.signature(CHECKS[method]).parameters)
            assert ["strategy", "returned", *re.findall(r"\w+", parameters)] == taken
    unchecked = {"check_clients", "take_up", "place"}  # of these, two return nothing
    assert {method for _, method, _ in rows} == CHECKS.keys() | unchecked


def test_the_procedure_learns_the_same_in_one_process_and_over_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (section,) = [section for section in SECTIONS if _title(section) == "A procedure"]
    _save_examples(section, tmp_path, monkeypatch)
    example, network = map(importlib.import_module, ["my_procedure", "my_network"])
    ends = []
    for train in (example.train, network.train):
        server, clients = example.set_up()
        planned = [(client.iterations, None) for client in clients.values()]
        assert [(o.iterations, o.failure) for o in train(server, clients)] == planned
        halves = [client.half for client in clients.values()]
        assert all(example.accuracy(server, half) > 0.9 for half in halves)
        states = [bytes_of(half.layers.state_dict()) for half in (server, *halves)]
        ends.append((states, [client.results for client in clients.values()]))
    assert ends[0] == ends[1]


PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def _anchors(page: Path) -> set[str]:
    """What links may point to in a page, as GitHub names it."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {text.replace(" ", "-") for text in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found), target

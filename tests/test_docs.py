"""The examples of docs/extending.md, run as they stand."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

from huscf_flwr.cli import main

TEXT = (PROJECT / "docs" / "extending.md").read_text()
SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.splitlines()[0])
def test_an_example_runs_as_it_stands(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    lines = code.splitlines()
    assert len(lines) <= 40
    (tmp_path / lines[0].removeprefix("# ")).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    commands = re.findall(r"^    (huscf|python) (.*)", section, flags=re.MULTILINE)
    assert commands
    for program, arguments in commands:
        if program == "huscf":
            assert main(shlex.split(arguments)) == 0
        else:
            monkeypatch.setattr(sys, "argv", [arguments])
            exec(compile(Path(arguments).read_text(), arguments, "exec"), {"__name__": "__main__"})

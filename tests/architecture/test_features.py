"""Every promise has a row, every mark names one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from .source import ROOT, listing

pytest_plugins = ["pytester"]

ROWS = tomllib.loads((ROOT / "tests" / "features.toml").read_text(encoding="utf-8"))
PLACES = ("unit", "sim", "live", "real", "in-memory")


def run_in(
    pytester: pytest.Pytester, body: str, *arguments: str, rows: str = "", alone: bool = False
) -> pytest.RunResult:
    """Run tests under our conftest: in this process, or alone in one of their own."""
    conftest = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    pytester.makeconftest(conftest)
    pytester.makefile(".toml", features=rows or '[C-01]\ntext = "a"\nwhere = "unit"\n')
    pytester.makeini(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
        "markers =\n    feature(id): a row\n"
    )
    pytester.makepyfile(f"import pytest\n{body}")
    run = pytester.runpytest_subprocess if alone else pytester.runpytest_inprocess
    return run("-p", "no:cacheprovider", *arguments)


def test_every_row_stands_alone_and_says_where_it_is_proven() -> None:
    problems = []
    for id_, row in ROWS.items():
        if not set(row) <= {"text", "where", "later"} or not row.get("text", "").endswith("."):
            problems.append(f"{id_}: needs a text that ends in a full stop, and where")
        if not any(place in row.get("where", "") for place in PLACES):
            problems.append(f"{id_}: where = one or more of {', '.join(PLACES)}")
        if "§" in row.get("text", ""):
            problems.append(f"{id_}: points to another paper")
    assert not problems, listing(problems, "Correct tests/features.toml.")


def test_ids_count_up_without_gaps() -> None:
    ids = list(ROWS)
    letters = list(dict.fromkeys(id_[0] for id_ in ids))
    expected = [
        f"{letter}-{number:02}"
        for letter in letters
        for number in range(1, sum(id_.startswith(letter) for id_ in ids) + 1)
    ]
    assert ids == expected


def test_a_mark_with_an_unknown_id_ends_the_collection(pytester: pytest.Pytester) -> None:
    result = run_in(pytester, "@pytest.mark.feature('C-99')\ndef test_a(): assert True\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_a: there is no row 'C-99' in tests/features.toml*"])


def test_a_mark_without_an_id_ends_the_collection(pytester: pytest.Pytester) -> None:
    result = run_in(pytester, "@pytest.mark.feature()\ndef test_a(): assert True\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_the_report_says_what_became_of_each_row(pytester: pytest.Pytester) -> None:
    rows = "".join(f'[C-0{n}]\ntext = "a"\nwhere = "unit"\n' for n in (1, 2, 3))
    body = (
        "@pytest.mark.feature('C-01', 'C-02')\ndef test_a(): assert True\n"
        "@pytest.mark.feature('C-02')\ndef test_b(): assert False\n"
        "@pytest.mark.feature('C-02')\n@pytest.mark.skip\ndef test_c(): assert True\n"
    )
    result = run_in(pytester, body, "--feature-report=report.json", rows=rows)
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    report = Path(pytester.path, "report.json").read_text(encoding="utf-8")
    name = "test_the_report_says_what_became_of_each_row.py"
    assert '"C-03": []' in report
    for test, outcome in (("test_a", "passed"), ("test_b", "failed"), ("test_c", "skipped")):
        assert f'"{name}::{test}",\n   "{outcome}"' in report


def test_a_test_that_reaches_another_machine_fails_even_if_the_code_takes_it_calmly(
    pytester: pytest.Pytester,
) -> None:
    body = (
        "import socket\n"
        "def test_a():\n"
        "    with socket.socket() as s:\n"
        "        try:\n            s.connect(('192.0.2.1', 80))\n"
        "        except OSError:\n            pass\n"
        "    assert True\n"
    )
    result = run_in(pytester, body, alone=True)
    result.stdout.fnmatch_lines(["*the test tried to reach another machine: connect to*192.0.2.1*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED

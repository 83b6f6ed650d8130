# SPDX-License-Identifier: BSL-1.0
#
# Makes docs/conformance.md of cpython.tsv and the results of a run, or checks whether it is that.
#
#   table.py write CTEST BUILD RESULTS   lines of name, start method or nothing, and result
#   table.py check CTEST BUILD           runs nothing: only what is in the table, not how it went
#   table.py covering                    the ctest tests that results are wanted of, too
import collections
import csv
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CHECKLIST = HERE / "cpython.tsv"
PAGE = HERE.parent.parent / "docs" / "conformance.md"
ONCE = "once"
METHODS = ["fork", "spawn", "forkserver"]  # in this order; others after them
LAST = "what it asserts"

TEXT = """\
# CPython's tests

What CPython itself tests of `multiprocessing`, and of `concurrent.futures` with processes. Of {all}
tests {portable} say something that can be said in C++, and {ported} of these are ported, under
their own names, in [tests/conformance](../tests/conformance). In the run that this page was made
from, {outcome}.

A column tells how a test went under the start method it is named after, or `once` where the test
does not vary it. *Not yet* is still to be ported; *Python's own* has no meaning in C++; what is
*adapted* says the same in C++'s words. `tests/conformance/report` makes this page, with what it
says of each test from `tests/conformance/cpython.tsv`.

"""


def read_checklist():
    with open(CHECKLIST, encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith("#")]
    tests = {}
    for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
        name = f"{row['class']}.{row['test']}"
        if name in tests:
            sys.exit(f"{CHECKLIST.name}: {name} is there twice")
        if row["portable"] not in ("yes", "adapt", "no"):
            sys.exit(f"{CHECKLIST.name}: {name}: portable is yes, adapt or no")
        tests[name] = row
    return tests


def read_results(path):
    """What a run says: {name: {column: result}}. Of several passes the worst counts."""
    results = collections.defaultdict(dict)
    worst = ["skipped", "passed", "failed"]
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, method, result = line.rstrip("\n").split("\t")
            of_test = results[name]
            column = method or ONCE
            of_test[column] = max(of_test.get(column, result), result, key=worst.index)
    return results


def read_page():
    """The same from the page, as far as it has rows with results."""
    results = {}
    group, columns = None, []
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []:
        if line.startswith("### "):
            group = line[4:]
        elif group and line.startswith("| test "):
            columns = [cell.strip() for cell in line.split("|")[2:-2]]
        elif group and line.startswith("| `"):
            test, *cells = [cell.strip(" `*") for cell in line.split("|")[1:]]
            of_test = {column: cell for column, cell in zip(columns, cells) if cell}
            if of_test:
                results[f"{group}.{test}"] = of_test
    return results


def read_existing(ctest, build):
    """The names of the cases of test_conformance, and of all tests that ctest knows."""
    # From elsewhere, for ctest writes over its log even when it only shows.
    with tempfile.TemporaryDirectory() as folder:
        tests = f'subdirs("{pathlib.Path(build).resolve()}")\n'
        pathlib.Path(folder, "CTestTestfile.cmake").write_text(tests, encoding="utf-8")
        command = [ctest, "--show-only=json-v1"]
        listing = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True).stdout
    tests = json.loads(listing)["tests"]
    programs = {test["name"]: test.get("command", [""])[0] for test in tests}
    cases = {name for name, path in programs.items() if path.endswith("/test_conformance")}
    if not cases:
        sys.exit("ctest knows no case of test_conformance: has it been built?")
    return cases, set(programs)


def complaints_about(checklist, cases, known):
    for name in sorted(cases - set(checklist)):
        yield f"{name}: is a test case, but not in {CHECKLIST.name}"
    for name, row in checklist.items():
        covering = row["covered by"]
        if row["portable"] == "no" and (covering or name in cases):
            yield f"{name}: is ported, but not portable says {CHECKLIST.name}"
        if covering and name in cases:
            yield f"{name}: is a test case, and covered by '{covering}' says {CHECKLIST.name}"
        if covering and covering not in known:
            yield f"{name}: covered by '{covering}', which is no test of ctest's"


def escaped(text):
    return re.sub(r"[\\<|*]|__", lambda found: "".join("\\" + c for c in found[0]), text)


def table(rows):
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) + "\n"


def remark(row, results):
    if results:
        parts = ["*adapted*"] if row["portable"] == "adapt" else []
        parts += [f"by `{row['covered by']}`"] if row["covered by"] else []
    else:
        parts = ["*Python's own*" if row["portable"] == "no" else "*not yet*"]
    return ", ".join(parts) + (": " if parts else "") + escaped(row["asserts"])


def table_of_class(tests, results):
    used = {column for name in tests for column in results.get(name, {})}
    order = [ONCE, *METHODS]
    columns = [c for c in order if c in used] + sorted(used.difference(order))
    rows = [["test", *columns, LAST]]
    for name, row in tests.items():
        of_test = results.get(name, {})
        cells = [of_test.get(column, "") for column in columns]
        cells = [cell if cell == "passed" else f"**{cell}**" if cell else "" for cell in cells]
        rows.append([f"`{row['test']}`", *cells, remark(row, of_test)])
    return table(rows)


def count(tests, results):
    """All, portable and ported."""
    portable = [name for name, row in tests.items() if row["portable"] != "no"]
    return len(tests), len(portable), sum(name in results for name in tests)


def counts_in_cells(tests, results):
    total, portable, ported = count(tests, results)
    numbers = (portable - ported, total - portable)
    return [f"{ported} / {portable}", *(str(number or "") for number in numbers)]


def outcome(results):
    parts = []
    for result in ("failed", "skipped"):
        names = [name for name, of_test in results.items() if result in of_test.values()]
        if names:
            parts.append(f"{len(names)} {result}")
    return " and ".join(parts) + ", wholly or in part" if parts else "all of them passed"


def page(checklist, results):
    files = collections.defaultdict(lambda: collections.defaultdict(dict))
    for name, row in checklist.items():
        files[row["file"]][row["class"]][name] = row

    total, portable, ported = count(checklist, results)
    text = TEXT.format(all=total, portable=portable, ported=ported, outcome=outcome(results))
    rows = [["class", "ported / portable", "not yet", "Python's own"]]
    for classes in files.values():
        for group, tests in classes.items():
            rows.append([f"[{group}](#{group.lower()})", *counts_in_cells(tests, results)])
    rows.append(["**all**", *counts_in_cells(checklist, results)])
    text += table(rows)

    for file, classes in files.items():
        text += f"## {file}\n\n"
        for group, tests in classes.items():
            text += f"### {group}\n\n" + table_of_class(tests, results)
    return text.rstrip("\n") + "\n"


def end_with(complaints):
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    sys.exit(1 if complaints else 0)


def write(ctest, build, results_path):
    checklist = read_checklist()
    cases, known = read_existing(ctest, build)
    run = read_results(results_path)
    results = {
        name: run[source]
        for name, row in checklist.items()
        for source in (name, row["covered by"])
        if source in run
    }
    complaints = list(complaints_about(checklist, cases, known))
    wanted = cases.union(row["covered by"] for row in checklist.values() if row["covered by"])
    complaints += [f"{name}: the run has no result of it" for name in sorted(wanted - set(run))]
    if not complaints:
        PAGE.write_text(page(checklist, results), encoding="utf-8")
    end_with(complaints)


def check(ctest, build):
    checklist = read_checklist()
    cases, known = read_existing(ctest, build)
    results = read_page()
    complaints = list(complaints_about(checklist, cases, known))
    there = cases.union(name for name, row in checklist.items() if row["covered by"])
    out_of_date = []
    for name in sorted(there.intersection(checklist) - set(results)):
        out_of_date.append(f"{name}: is ported, but not so says docs/{PAGE.name}")
    for name in sorted(set(results) - there):
        out_of_date.append(f"{name}: is not ported, but so says docs/{PAGE.name}")
    if not out_of_date and PAGE.read_text(encoding="utf-8") != page(checklist, results):
        out_of_date.append(f"docs/{PAGE.name} is not what is made of {CHECKLIST.name}")
    if out_of_date:
        out_of_date.append(f"to write docs/{PAGE.name} anew: tests/conformance/report")
    end_with(complaints + out_of_date)


def covering():
    names = dict.fromkeys(row["covered by"] for row in read_checklist().values())
    for name in filter(None, names):
        print(name)


if __name__ == "__main__":
    _, command, *arguments = sys.argv
    {"write": write, "check": check, "covering": covering}[command](*arguments)

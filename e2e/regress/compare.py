"""compare.py NAME DIRECTORY ALLOWED: what a run of pg_regress says, less the differences that are allowed.

ALLOWED has a line for each: run, test, regular expression of a whole changed line, with + or - and single blanks, reason;
separated by tabs. `*` is every run, or every test. The last line is `N passed, N failed`."""

import collections
import pathlib
import re
import sys


def differences(text):
    """The changed lines of each test, from regression.diffs: without those that differ in the width of columns only."""
    removed, added, test = collections.defaultdict(list), collections.defaultdict(list), None
    for line in text.splitlines():
        if line.startswith("diff "):
            test = pathlib.PurePath(line.split()[-1]).stem
            continue
        if line[:1] not in "+-" or line.startswith(("+++ ", "--- ")):
            continue
        content = " ".join(line[1:].split())
        if not content.strip("-+ "):
            continue
        (removed if line[0] == "-" else added)[test].append(content)
    found = collections.defaultdict(list)
    for test in removed.keys() | added.keys():
        before, after = collections.Counter(removed[test]), collections.Counter(added[test])
        found[test] = [f"-{line}" for line in (before - after).elements()] + [f"+{line}" for line in (after - before).elements()]
    return found


def main():
    name, directory, allowed_file = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    allowed = [line.split("\t") for line in allowed_file.read_text().splitlines() if line and not line.startswith("#")]
    log = (directory / "log").read_text()
    diffs_file = directory / "regression.diffs"
    changed = differences(diffs_file.read_text() if diffs_file.exists() else "")
    results = re.findall(r"^(ok|not ok) \d+ +[-+] (\w[\w.]*)", log, re.M)
    passed = failed = 0
    for result, test in results:
        rules = [re.compile(rule[2]) for rule in allowed if rule[0] in ("*", name) and rule[1] in ("*", test)]
        left = [line for line in changed[test] if not any(rule.fullmatch(line) for rule in rules)]
        if result == "ok" or ((directory / "results" / f"{test}.out").exists() and not left):
            passed += 1
        else:
            failed += 1
            print(f"{name}: {test} differs:")
            print("\n".join(f"    {line}" for line in left[:20]))
    if not results:
        print(f"{name}: no test ran:\n{log[-2000:]}")
        failed += 1
    print(f"{passed} passed, {failed} failed")


main()

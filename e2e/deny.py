"""Checks the dependencies against deny.toml: licences, sources, duplicate versions; and that each of them is used. The part
of `cargo deny check` that needs no network and nothing to install. Exit code 1 and a list when something is not allowed."""

import collections
import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def packages(targets):
    """Every package that is compiled for one of the targets, tests included."""
    compiled = set()
    for target in targets:
        tree = cargo("tree", "--locked", "--workspace", "--target", target, "--prefix", "none", "--format", "{p}")
        compiled |= {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    # The metadata also has packages of features that nothing turns on.
    platforms = [argument for target in targets for argument in ("--filter-platform", target)]
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", *platforms))
    return [package for package in metadata["packages"] if (package["name"], f"v{package['version']}") in compiled]


def allowed(expression, allow):
    """Whether an SPDX expression is satisfied by licences that are allowed."""
    # Old crates write a slash for OR.
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def one():
        if peek() == "(":
            take()
            value = either()
            take()
            return value
        name = take()
        if peek() == "WITH":
            name = f"{name} {take()} {take()}"
        return name in allow

    def both():
        value = one()
        while peek() == "AND":
            take()
            value = one() and value
        return value

    def either():
        value = both()
        while peek() == "OR":
            take()
            value = both() or value
        return value

    return either()


def unused_dependencies():
    """Dependencies that no source file of their crate names, and those of the workspace that no crate has."""
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    left = set(workspace["dependencies"])
    for member in workspace["members"]:
        manifest = tomllib.loads((ROOT / member / "Cargo.toml").read_text())
        names = {name for kind, entries in manifest.items() if kind.endswith("dependencies") for name in entries}
        left -= names
        # A member can be the directory of others.
        sources = " ".join(file.read_text() for part in ("src", "tests", "examples", "benches") for file in (ROOT / member / part).rglob("*.rs"))
        for name in sorted(names):
            if not re.search(rf"\b{name.replace('-', '_')}\b", sources):
                yield f"{member}/Cargo.toml has {name}, which no source file names"
    yield from (f"Cargo.toml has {name}, which no crate has" for name in sorted(left))


def main():
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    allow = set(rules["licenses"]["allow"])
    skipped = {entry["crate"] for entry in rules["bans"]["skip"]}
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    problems, versions, unused = [], collections.defaultdict(list), set(skipped)
    for package in packages(rules["graph"]["targets"]):
        name = f"{package['name']}@{package['version']}"
        if not package["license"]:
            problems.append(f"{name} names no licence")
        elif not allowed(package["license"], allow):
            problems.append(f"{name} has the licence {package['license']}, which deny.toml does not allow")
        if package["source"] and package["source"] not in registries:
            problems.append(f"{name} comes from {package['source']}, which deny.toml does not allow")
        if name in skipped:
            unused.discard(name)
        else:
            versions[package["name"]].append(package["version"])
    problems += [f"{name} has {len(found)} versions: {', '.join(sorted(found))}" for name, found in versions.items() if len(found) > 1]
    problems += [f"deny.toml skips {name}, which is no dependency" for name in unused]
    problems += unused_dependencies()
    for problem in sorted(problems):
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()

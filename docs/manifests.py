"""Writes the YAML blocks of Markdown pages into files, for a test that applies them (charts/test-cluster.sh).

usage: docs/manifests.py DIRECTORY PAGE...

Every block must be one of these; another one is an error, so that no block of the book is without a test:
  manifests of pgrail and Kubernetes                      -> DIRECTORY/apply/PAGE-LINE.yaml
  manifests of Flux and others                            -> DIRECTORY/other/PAGE-LINE.yaml
  a part of one, after the line <!-- part of: KIND -->    -> DIRECTORY/part/PAGE-LINE.yaml, and what it is merged into beside it
                                                             (PAGE-LINE.json)
  values of the chart, after <!-- part of: values.yaml -->   DIRECTORY/values/PAGE-LINE.yaml
"""

import json
import os
import re
import sys

OURS = {"v1", "pgrail.dev/v1alpha1"}
SHOP = {"databaseRef": {"name": "shop"}}
# The smallest valid spec of each kind that a page shows a part of.
WHOLE = {
    "ConfigMap": {},
    "ProtectedDatabase": {"spec": {"connection": {"secretRef": {"name": "shop-pgrail"}}}},
    "TableGuard": {"spec": {**SHOP, "tables": [{"schema": "public", "name": "users"}]}},
    "BackupSchedule": {"spec": {**SHOP, "schedule": "15 2 * * *", "storage": {"url": "s3://backups/shop"}}},
    "DatabaseRestore": {"spec": {"source": {"backupRef": {"name": "nightly-1"}}, "target": SHOP}},
}


def blocks(text):
    """(line, comment before the block, content) of each YAML block. Indented blocks are unindented."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        start = re.match(r"( *)```ya?ml\b", lines[number])
        if start:
            end = lines.index(start[1] + "```", number + 1)
            before = [line for line in lines[:number] if line.strip()]
            content = [line[len(start[1]) :] for line in lines[number + 1 : end]]
            yield number + 1, before[-1] if before else "", "\n".join(content) + "\n"
            number = end
        number += 1


def main(directory, pages):
    errors = 0
    for page in pages:
        with open(page, encoding="utf-8") as file:
            text = file.read()
        for line, before, content in blocks(text):
            name = "%s-%d" % (page.replace("/", "."), line)
            versions = set(re.findall(r"(?m)^apiVersion: *(\S+)", content))
            part = re.match(r"<!-- part of: (\S+) -->", before)
            if versions:
                place = "apply" if versions <= OURS else "other"
            elif part and part[1] == "values.yaml":
                place = "values"
            elif part and part[1] in WHOLE:
                place = "part"
                version = "v1" if part[1] == "ConfigMap" else "pgrail.dev/v1alpha1"
                whole = {"apiVersion": version, "kind": part[1], "metadata": {"name": "part"}, **WHOLE[part[1]]}
                os.makedirs(os.path.join(directory, place), exist_ok=True)
                with open(os.path.join(directory, place, name + ".json"), "w", encoding="utf-8") as file:
                    json.dump(whole, file)
            else:
                print("%s:%d: a YAML block without apiVersion, and without <!-- part of: KIND --> before it" % (page, line))
                errors += 1
                continue
            os.makedirs(os.path.join(directory, place), exist_ok=True)
            with open(os.path.join(directory, place, name + ".yaml"), "w", encoding="utf-8") as file:
                file.write(content)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

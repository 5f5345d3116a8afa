#!/usr/bin/env bash
# Tests of the book: the reference is up to date, every page is in the summary, and the targets of links exist. The stage `chart`
# applies its YAML blocks (docs/manifests.py).
# The last line is `N passed, N failed`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=../e2e/check.sh
source e2e/check.sh

link_targets_exist() { # FILE...
  python3 - "$@" <<'PYTHON'
import os, re, sys

def anchors(path):
    """The anchors of the headings of a page, as GitHub and mdBook make them."""
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"(?ms)^```.*?^```", "", file.read())
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in re.findall(r"(?m)^#+ (.*)$", text)}

broken = 0
for page in sys.argv[1:]:
    with open(page, encoding="utf-8") as file:
        text = file.read()
    for link in re.findall(r"\]\(([^) ]+)\)", text):
        # Files of this repository, named by pages that are shown elsewhere.
        own = "https://github.com/pgrail/pgrail/blob/main/"
        if link.startswith(own):
            link = os.path.relpath(link[len(own):], os.path.dirname(page) or ".")
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = os.path.join(os.path.dirname(page), path) if path else page
        if not os.path.exists(target):
            print("%s: %s does not exist" % (page, link))
        elif anchor and target.endswith(".md") and anchor not in anchors(target):
            print("%s: %s has no such heading" % (page, link))
        else:
            continue
        broken = 1
sys.exit(broken)
PYTHON
}
all_in_summary() {
  local page missing=0
  while read -r page; do
    grep -qF "(${page#docs/src/})" docs/src/SUMMARY.md || { echo "$page is not in SUMMARY.md"; missing=1; }
  done < <(find docs/src -name '*.md' ! -name SUMMARY.md)
  return "$missing"
}
# Files that the book and the README name.
commands_exist() {
  local file missing=0
  while read -r file; do
    [[ -e $file ]] || { echo "$file does not exist"; missing=1; }
  done < <(grep -rohE '\b(charts|deploy|demo|docs|e2e|examples|release)/[A-Za-z0-9_./-]*[A-Za-z0-9]' README.md charts/pgrail/README.md docs/src demo/demo.sh | sort -u)
  return "$missing"
}
# Words that the PostgreSQL manual does not use, or uses for something else. Write: reported, fix, repair, the role, the user,
# must, directory, stage, again, depends on, allows, restores, revokes.
words_of_the_manual() { # FILE...
  ! grep -nwiE "mend(s|ed)?|whoever|somebody|nobody|shall|folders?|rungs?|anew|(is|are|be) told|(is|are) gone|taken away|tak(e|es|en) back|(put|puts) back|let(s)? (it )?(pass|through)|looks? (after|at once|anew)|hangs? on|of ours|misspelt" "$@"
}

check "the reference is up to date" docs/reference.sh --check
check "every page is in the summary" all_in_summary
mapfile -t pages < <(find README.md SECURITY.md CONTRIBUTING.md CHANGELOG.md charts/pgrail/README.md docs/src -name '*.md')
check "link targets exist" link_targets_exist "${pages[@]}"
broken=$(mktemp)
trap 'rm -f "$broken"' EXIT
echo "[x](no-such-page.md)" >"$broken"
check "a broken link is found" not link_targets_exist "$broken"
echo "[x]($root/README.md#no-such-heading)" >"$broken"
check "a link to a heading that does not exist is found" not link_targets_exist "$broken"
echo "[x](https://github.com/pgrail/pgrail/blob/main/no-such-page.md)" >"$broken"
check "a link to a file that this repository does not have is found" not link_targets_exist "$broken"
check "files that the book names exist" commands_exist
mapfile -t texts < <(find README.md SECURITY.md CHANGELOG.md docs/src examples charts/pgrail/{README.md,values.yaml,templates/NOTES.txt} \
  crds/yaml deploy/alerts deploy/kustomize -type f ! -name '*.svg')
check "words of the manual" words_of_the_manual "${texts[@]}"
echo "Whoever takes it away" >"$broken"
check "another word is found" not words_of_the_manual "$broken"

count_line

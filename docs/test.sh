#!/usr/bin/env bash
# Tests of the book: the reference is up to date, every page is in the summary, and the targets of links exist.
# The last line is `N passed, N failed`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=../e2e/check.sh
source e2e/check.sh

link_targets_exist() { # FILE...
  local file link target broken=0
  for file in "$@"; do
    while read -r link; do
      [[ $link == *://* || $link == '#'* || -z $link ]] && continue
      target=$(dirname "$file")/${link%%#*}
      [[ -e $target ]] || { echo "$file: $link does not exist"; broken=1; }
    done < <(grep -oE '\]\([^) ]+\)' "$file" | sed -E 's/^\]\(//; s/\)$//')
  done
  return "$broken"
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
  done < <(grep -rohE '\b(charts|deploy|demo|docs|e2e|examples)/[A-Za-z0-9_./-]*[A-Za-z0-9]' README.md charts/pgrail/README.md docs/src demo/demo.sh | sort -u)
  return "$missing"
}
# Words that the PostgreSQL manual does not use, or uses for something else. Write: reported, fix, repair, the role, the user,
# must, directory, stage, again, depends on, allows, restores, revokes.
words_of_the_manual() { # FILE...
  ! grep -nwiE "mend(s|ed)?|whoever|somebody|nobody|shall|folders?|rungs?|anew|(is|are|be) told|(is|are) gone|taken away|tak(e|es|en) back|(put|puts) back|let(s)? (it )?(pass|through)|looks? (after|at once|anew)|hangs? on|of ours|misspelt" "$@"
}

check "the reference is up to date" docs/reference.sh --check
check "every page is in the summary" all_in_summary
mapfile -t pages < <(find README.md SECURITY.md CHANGELOG.md charts/pgrail/README.md docs/src -name '*.md')
check "link targets exist" link_targets_exist "${pages[@]}"
broken=$(mktemp)
trap 'rm -f "$broken"' EXIT
echo "[x](no-such-page.md)" >"$broken"
check "a broken link is found" not link_targets_exist "$broken"
check "files that the book names exist" commands_exist
mapfile -t texts < <(find README.md SECURITY.md CHANGELOG.md docs/src examples charts/pgrail/{README.md,values.yaml,templates/NOTES.txt} \
  crds/yaml deploy/alerts deploy/kustomize -type f ! -name '*.svg')
check "words of the manual" words_of_the_manual "${texts[@]}"
echo "Whoever takes it away" >"$broken"
check "another word is found" not words_of_the_manual "$broken"

count_line

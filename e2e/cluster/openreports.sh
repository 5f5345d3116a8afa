#!/usr/bin/env bash
# openreports.sh: prints the path of the CRD `reports.openreports.io`, as released by the OpenReports project: from its Go
# module, of a fixed version and checksum. It is not copied into this repository.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
module=github.com/openreports/reports-api version=v0.2.1
sum='h1:g9KS3yle9Y1elmww4TK9EkD1rl6inIaiIJPX6e+u680='
command -v go >/dev/null || missing "Go (the CRD of OpenReports is in a Go module; https://go.dev/doc/install)"
# Outside of any module: nothing is written to a go.mod.
found=$(cd / && GOFLAGS=-mod=mod go mod download -json "$module@$version")
[[ $found == *"\"Sum\": \"$sum\""* ]] || die "$module@$version has another checksum than expected"
file=$(sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p' <<<"$found")/config/crd/openreports.io_reports.yaml
[[ -f $file ]] || die "$module@$version has no $file"
printf '%s\n' "$file"

# Sourced by the supervisor of a run (e2e/process): the S3 server.
# shellcheck shell=bash disable=SC2154
keep s3 "$(dirname "$parts")/part.sh" "$run"

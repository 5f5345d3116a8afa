# Sourced: Debian's packages of any suite, without the machine's own sources, lists and installed packages.
# shellcheck shell=bash

# The suites to look in, the likeliest first.
suites_of() {
  case "$1" in
    15) echo "bookworm" ;;
    17) echo "trixie" ;;
    18) echo "forky sid" ;;
    *) echo "forky sid experimental" ;;
  esac
}

# The archive that this machine itself takes Debian's packages from: as apt knows it, or, before its first
# `apt-get update`, as its sources say.
debian_archive() {
  {
    # shellcheck disable=SC2016 # apt fills these in
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' 2>/dev/null |
      awk '$2 == "Debian" && $1 !~ /security/ { print $1 }'
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } |
      sed -n 's/^ *\(deb\|URIs:\) .*\(https\{0,1\}:[^ ]*\/debian\)\/*\( .*\)*$/\2/p'
  } | sed -n 1p # not head: it would close the pipe under those still writing
}

# apt with a package list of its own: the machine's sources, lists and installed packages play no part.
apt_of_suite() { # DIRECTORY ARCHIVE SUITE
  mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $2 $3 main" >"$1/sources.list"
  cat >"$1/apt.conf" <<CONFIG
Dir::Etc::SourceList "$1/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$1/lists";
Dir::State::Status "/dev/null";
Dir::Cache "$1/cache";
Debug::NoLocking "1";
APT::Install-Recommends "0";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
CONFIG
  export APT_CONFIG="$1/apt.conf"
}

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

# unpack_package SUITE PACKAGE DIRECTORY: downloads a package, whose signature apt checks, and unpacks it into DIRECTORY/root. A failure
# is reported with `missing`, which the script that sources this file defines.
unpack_package() {
  local archive
  command -v apt-get >/dev/null || missing "this machine has no apt-get"
  archive=$(debian_archive)
  [[ -n $archive ]] || missing "no Debian archive among this machine's package sources"
  mkdir -p "$3/debs"
  apt_of_suite "$3/apt" "$archive" "$1"
  say "downloading $2 of Debian $1"
  (cd "$3/debs" && apt-get -q update && apt-get -q download "$2") >"$3/log" 2>&1 ||
    missing "the download failed: $(tail -n 1 "$3/log")"
  dpkg-deb -x "$3"/debs/*.deb "$3/root"
}

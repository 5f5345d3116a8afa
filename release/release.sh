#!/usr/bin/env bash
# Builds the files of a release, for the architecture of this machine.
#
#   release/release.sh                  all of them, into target/release-VERSION
#   release/release.sh sums DIRECTORY   SHA256SUMS of the files in a directory, and its signature
#
#   pgrail-VERSION-linux-ARCH.tar.gz         the program, also as kubectl-pgrail and kubectl_complete-pgrail
#   pgrail-VERSION-image-linux-ARCH.tar.gz   the container image, for `docker load`
#   pgrail-VERSION-sbom-linux-ARCH.cdx.json  what the program is compiled from (CycloneDX)
#   pgrail-VERSION.tgz                       the Helm chart
#   pgrail-VERSION-crds.yaml                 the CRDs
#   pgrail-VERSION-install.yaml              all objects of deploy/kustomize/base
#   SHA256SUMS, SHA256SUMS.asc               checksums, and their signature
#
# Environment:
#   PGRAIL_RELEASE_TAG       the git tag of a release that will be published: it must be vVERSION, CHANGELOG.md must have the
#                            version with its date, and the tree must be clean
#   PGRAIL_RELEASE_GPG_KEY   the key of gpg that signs; none: not signed, and reported
#   PGRAIL_RELEASE_BINARY    an existing program instead of building one: for tests
#   PGRAIL_RELEASE_IMAGE     the name of the image (default: ghcr.io/pgrail/pgrail)
# Needs Docker, or root (e2e/cluster/image.sh). Helm and kubectl: from PATH, or built by e2e/cluster/tools.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf 'release: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

sums() { # DIRECTORY
  rm -f "$1"/SHA256SUMS*
  # All files exist before the list does.
  (cd "$1" && sha256sum -- * >.sums && mv .sums SHA256SUMS)
  if [[ -n ${PGRAIL_RELEASE_GPG_KEY:-} ]]; then
    gpg --batch --yes --armor --detach-sign --local-user "$PGRAIL_RELEASE_GPG_KEY" --output "$1/SHA256SUMS.asc" "$1/SHA256SUMS"
    gpg --batch --verify "$1/SHA256SUMS.asc" "$1/SHA256SUMS" 2>/dev/null
  else
    say "not signed: PGRAIL_RELEASE_GPG_KEY is not set"
  fi
}

case ${1:-} in
  "") ;;
  sums) sums "$(realpath "${2:?a directory}")"; exit ;;
  *) echo "usage: release/release.sh [sums DIRECTORY]" >&2; exit 2 ;;
esac

version=$(release/version.sh)
commit=$(git rev-parse --short=12 HEAD)
time=$(git show --no-patch --format=%ct HEAD)
clean=yes
[[ -z $(git status --porcelain) ]] || clean=
release/version.sh --check >&2 || die "the files above have another version"
if [[ -n ${PGRAIL_RELEASE_TAG:-} ]]; then
  [[ $PGRAIL_RELEASE_TAG == "v$version" ]] || die "the tag is $PGRAIL_RELEASE_TAG, but Cargo.toml has $version"
  grep -qE "^## ${version//./\\.} \([0-9]{4}-[0-9]{2}-[0-9]{2}\)$" CHANGELOG.md || die "CHANGELOG.md has no line '## $version (YYYY-MM-DD)'"
  [[ -n $clean ]] || die "files are not committed"
else
  say "not for publication: PGRAIL_RELEASE_TAG is not set"
fi
revision=$commit
[[ -n $clean ]] || revision="$commit with changes"

target=${CARGO_TARGET_DIR:-$root/target}
out=$target/release-$version
image=${PGRAIL_RELEASE_IMAGE:-ghcr.io/pgrail/pgrail}:$version
case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *) die "no releases for $(uname -m)" ;;
esac
helm=${HELM:-$(command -v helm || printf '%s/helm' "$(e2e/cluster/tools.sh helm)")}
kubectl=$(command -v kubectl || printf '%s/kubectl' "$(e2e/cluster/tools.sh kube)")
cyclonedx=$(release/tools.sh)
rm -rf "$out"
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The same sources have the same files: names, owners and times are those of the commit.
pack() { tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$time" --directory "$1" "${@:3}" | gzip --no-name >"$2"; }

binary=${PGRAIL_RELEASE_BINARY:-}
if [[ -z $binary ]]; then
  say "building pgrail $version ($revision): about 10 minutes"
  PGRAIL_VERSION="$version ($revision)" cargo build --locked --release --package pgrail
  binary=$target/release/pgrail
  [[ $("$binary" --version) == "pgrail $version ($revision)" ]] || die "the program reports another version: $("$binary" --version)"
fi
name=pgrail-$version-linux-$arch
mkdir "$scratch/$name"
install -m 755 "$binary" "$scratch/$name/pgrail"
install -m 644 LICENSE README.md CHANGELOG.md "$scratch/$name"
ln -s pgrail "$scratch/$name/kubectl-pgrail"
ln -s pgrail "$scratch/$name/kubectl_complete-pgrail"
pack "$scratch" "$out/$name.tar.gz" "$name"

say "SBOM"
# It writes beside each Cargo.toml: into a copy.
mkdir "$scratch/source"
git ls-files -z -- Cargo.toml Cargo.lock '*/Cargo.toml' '*.rs' | tar --create --null --files-from - | tar --extract --directory "$scratch/source"
(cd "$scratch/source" && SOURCE_DATE_EPOCH=$time "$cyclonedx" cyclonedx --manifest-path operator/Cargo.toml --format json --spec-version 1.5 \
  --target "$(rustc -vV | sed -n 's/^host: //p')" --override-filename sbom --quiet)
# The references to our own crates contain the directory.
sed "s#$scratch/source#pgrail#g" "$scratch/source/operator/sbom.json" >"$out/pgrail-$version-sbom-linux-$arch.cdx.json"

say "chart and manifests"
cp -r charts/pgrail "$scratch/pgrail"
find "$scratch/pgrail" -exec touch --date "@$time" {} +
"$helm" package "$scratch/pgrail" --destination "$out" >/dev/null
cat crds/yaml/*.yaml >"$out/pgrail-$version-crds.yaml"
"$kubectl" kustomize deploy/kustomize/base >"$out/pgrail-$version-install.yaml"

say "image $image"
e2e/cluster/image.sh --binary "$binary" --tag "$image" --no-load --label "org.opencontainers.image.version=$version" \
  --label "org.opencontainers.image.revision=$commit" --archive "$scratch/image.tar" >/dev/null
gzip --no-name <"$scratch/image.tar" >"$out/pgrail-$version-image-linux-$arch.tar.gz"

sums "$out"
say "the files are in $out"
cat "$out/SHA256SUMS"

#!/usr/bin/env bash
# Tests of release/release.sh: builds a release twice, once with a key made here, and checks what is in it. It compiles the
# program (about 10 minutes), so it is not part of `make test`. PGRAIL_RELEASE_BINARY: an existing program instead.
# The last line is `N passed, N failed`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=../e2e/check.sh
source e2e/check.sh
scratch=$(mktemp -d)
export GNUPGHOME=$scratch/gpg
trap 'gpgconf --kill gpg-agent 2>/dev/null || true; rm -rf "$scratch"' EXIT
mkdir -m 700 "$GNUPGHOME"
helm=${HELM:-$(command -v helm || printf '%s/helm' "$(e2e/cluster/tools.sh helm)")}

version=$(release/version.sh)
files=${CARGO_TARGET_DIR:-$root/target}/release-$version
case $(uname -m) in aarch64) arch=arm64 ;; *) arch=amd64 ;; esac

# The version is the same everywhere, and a difference is found.
copy() { # DIRECTORY: the files that release/version.sh reads, from the working tree
  mkdir -p "$1"
  git ls-files -z -- Cargo.toml Cargo.lock CHANGELOG.md README.md release charts deploy docs/src operator/src crds/yaml | tar --create --null --files-from - | tar --extract --directory "$1"
}
copy "$scratch/copy"
differs() { # FILE SED-EXPRESSION: then --check fails, and names the file
  local answer
  cp "$scratch/copy/$1" "$scratch/before"
  sed -i -E "$2" "$scratch/copy/$1"
  ! cmp -s "$scratch/before" "$scratch/copy/$1" || { echo "nothing changed"; return 1; }
  ! answer=$("$scratch/copy/release/version.sh" --check) && grep -q "^$1" <<<"$answer"
  local status=$?
  cp "$scratch/before" "$scratch/copy/$1"
  return "$status"
}
check "the version is the same in all files" release/version.sh --check
check "another appVersion of the chart is found" differs charts/pgrail/Chart.yaml 's/^appVersion: .*/appVersion: "9.9.9"/'
check "another version in Cargo.lock is found" differs Cargo.lock '/^name = "pgrail-guard"/ { n; s/".*"/"9.9.9"/ }'
check "another version in the README is found" differs README.md 's/^Version [0-9.]+,/Version 9.9.9,/'
check "no version in the README is found" differs README.md 's/[0-9]+\.[0-9]+\.[0-9]+//g'
check "another version in the changes is found" differs CHANGELOG.md 's/^## [0-9.]+/## 9.9.9/'

gpg --batch --quiet --passphrase '' --quick-generate-key 'pgrail test <test@example.com>' default sign 1d 2>/dev/null
key=$(gpg --batch --list-secret-keys --with-colons | awk -F : '/^fpr/ { print $10; exit }')
refused() { # MESSAGE COMMAND...
  local message=$1 answer; shift
  ! answer=$("$@" 2>&1) && grep -qF -- "$message" <<<"$answer" || { echo "$answer"; return 1; }
}
check "a tag of another version is refused" refused "the tag is v9.9.9" env PGRAIL_RELEASE_TAG=v9.9.9 release/release.sh
check "everything is built" env PGRAIL_RELEASE_GPG_KEY="$key" release/release.sh

for file in "pgrail-$version-linux-$arch.tar.gz" "pgrail-$version-image-linux-$arch.tar.gz" "pgrail-$version-sbom-linux-$arch.cdx.json" \
  "pgrail-$version.tgz" "pgrail-$version-crds.yaml" "pgrail-$version-install.yaml" SHA256SUMS SHA256SUMS.asc; do
  check "$file" test -s "$files/$file"
done
mkdir "$scratch/program"
tar --extract --file "$files/pgrail-$version-linux-$arch.tar.gz" --directory "$scratch/program"
program=$scratch/program/pgrail-$version-linux-$arch/pgrail
if [[ -z ${PGRAIL_RELEASE_BINARY:-} ]]; then
  check "the program reports its version and commit" grep -qxE "pgrail ${version//./\\.} \($(git rev-parse --short=12 HEAD)( with changes)?\)" <("$program" --version)
fi
check "the program prints the CRDs that are released" diff <("$program" crds | grep -c '^kind: CustomResourceDefinition') <(grep -c '^kind: CustomResourceDefinition' "$files/pgrail-$version-crds.yaml")
check "the plugin of kubectl" grep -q kubectl <("${program%/*}/kubectl-pgrail" --help)
check "the chart has the version" grep -qx "version: $version" <("$helm" show chart "$files/pgrail-$version.tgz")
check "the chart can be rendered" "$helm" template pgrail "$files/pgrail-$version.tgz" --namespace pgrail-system
check "the manifests name the image of this version" grep -q "image: .*/pgrail:$version\"*$" "$files/pgrail-$version-install.yaml"
sbom=$files/pgrail-$version-sbom-linux-$arch.cdx.json
check "the SBOM describes pgrail" jq -e --arg version "$version" '.bomFormat == "CycloneDX" and .metadata.component.name == "pgrail" and .metadata.component.version == $version' "$sbom"
# What is compiled, and with the licences that deny.toml allows; not what only tests need.
check "the SBOM has the dependencies" jq -e '[.components[].name] | contains(["tokio-postgres", "kube-client", "rustls", "object_store"])' "$sbom"
check "the SBOM names no directory of this machine" not grep -E 'file:///|/tmp/' "$sbom"
check "the SBOM has versions, licences and package URLs" jq -e '[.components[] | select((.purl | startswith("pkg:cargo/")) and (.version != null) and ((.licenses | length) > 0) | not) | .name] == []' "$sbom"
image=$scratch/image
mkdir "$image"
tar --extract --gzip --file "$files/pgrail-$version-image-linux-$arch.tar.gz" --directory "$image"
check "the image has its name and version" jq -e --arg tag ":$version" '.[0].RepoTags[0] | endswith($tag)' "$image/manifest.json"
config=$image/$(jq -r '.[0].Config' "$image/manifest.json")
check "the image has labels" jq -e --arg version "$version" '.config.Labels["org.opencontainers.image.version"] == $version and (.config.Labels["org.opencontainers.image.revision"] | length) == 12' "$config"
check "the image does not run as root" jq -e '.config.User == "65532:65532"' "$config"

check "the checksums" env --chdir "$files" sha256sum --check --strict SHA256SUMS
check "every file has a checksum" diff <(cd "$files" && ls | grep -v '^SHA256SUMS') <(sed 's/^[0-9a-f]*  //' "$files/SHA256SUMS")
check "the signature" gpg --batch --verify "$files/SHA256SUMS.asc" "$files/SHA256SUMS"
cp -r "$files" "$scratch/changed"
echo >>"$scratch/changed/pgrail-$version-crds.yaml"
check "a changed file is found" not env --chdir "$scratch/changed" sha256sum --check --strict SHA256SUMS
echo >>"$scratch/changed/SHA256SUMS"
check "a changed list is found" not gpg --batch --verify "$scratch/changed/SHA256SUMS.asc" "$scratch/changed/SHA256SUMS"
check "the files can be signed again together" env PGRAIL_RELEASE_GPG_KEY="$key" release/release.sh sums "$scratch/changed"
check "then the list is right" env --chdir "$scratch/changed" sha256sum --check --strict SHA256SUMS

# The same commit and program have the same files. The image is the one of the cache.
cp -r "$files" "$scratch/first"
check "built again, with the same program" env PGRAIL_RELEASE_BINARY="$program" release/release.sh
same_files() { diff <(grep -v image "$scratch/first/SHA256SUMS") <(grep -v image "$files/SHA256SUMS"); }
check "the files are the same" same_files
check "without a key, nothing is signed" not test -e "$files/SHA256SUMS.asc"

count_line

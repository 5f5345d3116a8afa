#!/usr/bin/env bash
# image.sh [--binary FILE] [--tag NAME:TAG] [--name CLUSTER | --no-load] [--postgresql MAJOR] [--label KEY=VALUE]...
# [--archive FILE]: builds the image from
# deploy/Dockerfile around a pgrail program and loads it into the node of that name (without a name: into the default
# one, if it runs). Prints the image's name.
#   --binary      default: target/release/pgrail, built when it is not there
#   --tag         default: pgrail.dev/pgrail:dev
#   --archive     also writes the image to this file, as `docker load` and `ctr images import` read it
#   --postgresql  builds the server image alone, without pgrail: pgrail.dev/postgresql:MAJOR (15 or 18)
# Docker is used where its daemon answers. Without it (root): mmdebstrap makes Debian's base, buildah runs the same
# Dockerfile. Base and PostgreSQL are cached; only a changed program is packed again.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
repository=$(cd "$cluster_dir/../.." && pwd)

binary= tag= name= load=yes postgresql= file= labels=()
while (( $# )); do
  case $1 in
    --binary) binary=$2; shift ;;
    --tag) tag=$2; shift ;;
    --name) name=$2; shift ;;
    --no-load) load= ;;
    --postgresql) postgresql=$2; shift ;;
    --label) labels+=(--label "$2"); shift ;;
    --archive) file=$(realpath "$2"); shift ;;
    *) die "unknown argument $1; usage: image.sh [--binary FILE] [--tag NAME:TAG] [--name CLUSTER | --no-load] [--postgresql MAJOR] [--label KEY=VALUE]... [--archive FILE]" ;;
  esac
  shift
done

arguments=()
case $postgresql in
  '') target=runtime suite=forky tag=${tag:-pgrail.dev/pgrail:dev} ;;
  18) target=postgresql suite=forky ;;
  15) target=postgresql suite=bookworm ;;
  *) die "no Debian suite is known here for PostgreSQL $postgresql" ;;
esac
[[ -z $postgresql ]] || arguments=(--build-arg "POSTGRESQL_MAJOR=$postgresql")
tag=${tag:-pgrail.dev/postgresql:$postgresql}
arguments+=("${labels[@]}" --target "$target" --file "$repository/deploy/Dockerfile" --tag "$tag")

# The build context holds the program and nothing else.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
if [[ $target == runtime ]]; then
  if [[ -z $binary ]]; then
    binary=${CARGO_TARGET_DIR:-$repository/target}/release/pgrail
    say "building pgrail"
    (cd "$repository" && cargo build --release --locked --package pgrail) >&2
  fi
  [[ -x $binary ]] || die "no program at $binary"
  install -m 755 "$binary" "$context/pgrail"
  strip "$context/pgrail" 2>/dev/null || true
  # Same program, same layer: buildah and docker compare times too.
  touch --date=@0 "$context/pgrail"
fi

# build: the image, its id in $id; archive FILE: the same as docker-archive.
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
  # The base of the release is that of the Dockerfile.
  [[ $suite == forky ]] || arguments+=(--build-arg "BASE=docker.io/library/debian:$suite-slim")
  build() { id=$(docker build --quiet "${arguments[@]}" "$context"); }
  archive() { docker save --output "$1" "$tag"; }
else
  "$cluster_dir/requirements.sh" image
  base=docker.io/library/debian:$suite-slim
  build() {
    # Two builds at once would make the same base twice. The lock is held to the end.
    mkdir -p "$cache/images"
    exec 8>"$cache/images/.lock"
    flock 8
    # Layers as overlays take seconds; as copies (vfs) they work in a container too, where overlays do not stack.
    storage=overlay
    [[ $(stat --file-system --format %T "$cache/images") == overlayfs ]] && storage=vfs
    make_base
    id=$(buildah bud --quiet --layers --pull=never --network=host --build-arg "BASE=$base" "${arguments[@]}" "$context" 8>&-)
  }
  archive() { buildah push --quiet "$tag" "docker-archive:$1:$tag" >&2 8>&-; }
fi

# Image store and runtime directory of its own: the user's images are not touched.
buildah() {
  local conf=$cache/images/containers
  mkdir -p "$conf"
  [[ -e $conf/policy.json ]] || echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$conf/policy.json"
  [[ -e $conf/registries.conf ]] || echo 'unqualified-search-registries = []' >"$conf/registries.conf"
  local command=$1; shift
  local options=()
  [[ $command == bud || $command == push ]] && options=(--signature-policy "$conf/policy.json")
  CONTAINERS_REGISTRIES_CONF=$conf/registries.conf BUILDAH_ISOLATION=chroot command buildah --storage-driver "$storage" \
    --root "$cache/images/$storage" --runroot "$cache/images/run" "$command" "${options[@]}" "$@"
}

make_base() {
  local tar=$cache/images/debian-$suite.tar container
  buildah inspect --type image "$base" >/dev/null 2>&1 && return 0
  if [[ ! -e $tar ]]; then
    say "making Debian $suite, half a minute and more the first time"
    # A mirror that lags behind is signed all the same, and better than none. Documentation stays out, as in every slim image.
    mmdebstrap --quiet --variant=apt --include=ca-certificates --aptopt='Acquire::Check-Valid-Until "false"' \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
      --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/locale/*' \
      "$suite" "$tar.new" >"$tar.log" 2>&1 8>&- || { tail -n 20 "$tar.log" >&2; die "making Debian $suite failed"; }
    mv "$tar.new" "$tar"
  fi
  container=$(buildah from scratch 8>&-)
  buildah add --quiet "$container" "$tar" >/dev/null 8>&-
  buildah config --cmd /bin/bash "$container" 8>&-
  buildah commit --quiet --rm "$container" "$base" >/dev/null 8>&-
}

if [[ -z $name ]]; then
  name=default
  [[ -e $(run_dir default)/node-ready ]] || load=
fi
began=$SECONDS
build
say "$tag is built after $((SECONDS - began)) s"
[[ -z $file ]] || archive "$file"
if [[ -n $load && -z ${PGRAIL_KUBECONFIG:-} ]]; then
  # What the node has already is not packed and loaded again.
  loaded=$(run_dir "$name")/loaded/${tag//[\/:]/_}
  if [[ $(cat "$loaded" 2>/dev/null) != "$id" ]]; then
    archive "$context/image.tar"
    "$cluster_dir/load.sh" --name "$name" "$context/image.tar"
    mkdir -p "${loaded%/*}"
    printf '%s\n' "$id" >"$loaded"
  fi
fi
printf '%s\n' "$tag"

#!/usr/bin/env bash
# A container engine for `make test-docker` where none runs: Debian's docker.io, a base image made by debootstrap, in a
# network namespace of its own, so that nothing of this machine's network is touched. Root, apt and Debian only.
#
#   engine.sh start DIR   prepare the engine and build the images; DIR/env then has what to source
#   engine.sh build DIR   build the images again
#   engine.sh stop DIR    stop it and remove what it left, DIR included
set -euo pipefail
verb=$1 dir=$(realpath -m "$2")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
namespace=arborcast-docker-$(printf %s "$dir" | sha256sum | cut -c1-8)
base=arborcast-base:bookworm
# Debian's own, also where another docker comes first on the path.
docker=/usr/bin/docker compose=/usr/bin/docker-compose

packages() {
  local wanted=(docker.io docker-compose debootstrap iproute2 iptables) missing=() package
  for package in "${wanted[@]}"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  ((${#missing[@]} == 0)) && return
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

engine() { # engine PREFIX... : dockerd behind a prefix; waits until it answers
  local log=$dir/dockerd.log
  "$@" dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" -H "unix://$dir/socket" \
    --storage-driver overlay2 --iptables=false --ip6tables=false --ip-forward=false "${engine_options[@]}" \
    >>"$log" 2>&1 </dev/null &
  for _ in $(seq 150); do
    "$docker" -H "unix://$dir/socket" info >/dev/null 2>&1 && return
    sleep 0.2
  done
  tail -20 "$log" >&2
  echo "engine.sh: dockerd does not answer after 30 s" >&2
  return 1
}

halt() {
  [[ -f $dir/pid ]] || return 0
  local pid
  pid=$(<"$dir/pid")
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.2; done
  kill -9 "$pid"
}

base_image() {
  local mirror suite=bookworm
  mirror=$(sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+).*/\2/p' \
    /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | head -1 || true)
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates,iproute2 \
    "$suite" "$dir/rootfs" "${mirror:-http://deb.debian.org/debian}" >"$dir/debootstrap.log" 2>&1 ||
    { tail -5 "$dir/debootstrap.log" >&2; return 1; }
  rm -rf "$dir"/rootfs/var/cache/apt/archives/*.deb "$dir"/rootfs/var/lib/apt/lists/*
  cp /etc/apt/sources.list "$dir/rootfs/etc/apt/" 2>/dev/null || true
  cp /etc/apt/sources.list.d/* "$dir/rootfs/etc/apt/sources.list.d/" 2>/dev/null || true
  # This machine's authorities, for where packages come from a mirror that has one of its own.
  cp /etc/ssl/certs/ca-certificates.crt "$dir/rootfs/etc/ssl/certs/ca-certificates.crt"
  tar -C "$dir/rootfs" -c . | "$docker" -H "unix://$dir/socket" import \
    --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' - "$base" >/dev/null
  rm -rf "$dir/rootfs"
}

# Builds fetch packages: they run in this machine's network, where the engine makes no bridge and no rule.
# Containers run in a namespace of their own.
build_and_go_on() {
  # shellcheck disable=SC1091
  source "$dir/env"
  engine_options=(--bridge=none)
  engine env
  "$docker" image inspect "$base" >/dev/null 2>&1 || base_image
  (cd "$here" && "$compose" -f docker-compose.yml -f docker-compose.shaped.yml build --quiet) >"$dir/build.log" 2>&1 ||
    { tail -20 "$dir/build.log" >&2; exit 1; }
  halt
  [[ -e /run/netns/$namespace ]] || ip netns add "$namespace"
  ip -n "$namespace" link set lo up
  engine_options=()
  engine nsenter --net="/run/netns/$namespace"
}

case $verb in
start)
  mkdir -p "$dir"
  packages
  cat >"$dir/env" <<END
export DOCKER_HOST=unix://$dir/socket DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0
export PYTHON_IMAGE=$base ARBORCAST_BUILD_NETWORK=host ARBORCAST_COMPOSE=$compose
export ARBORCAST_ENGINE_NAMESPACE=/run/netns/$namespace
END
  build_and_go_on
  ;;
build)
  halt
  build_and_go_on
  ;;
stop)
  halt || true
  ip netns del "$namespace" 2>/dev/null || true
  for mounted in $(awk -v d="$dir/" 'index($2, d) == 1 {print $2}' /proc/mounts | sort -r); do umount -l "$mounted"; done
  rm -rf "$dir"
  ;;
*)
  echo "usage: engine.sh start|build|stop DIR" >&2
  exit 2
  ;;
esac

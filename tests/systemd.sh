#!/usr/bin/env bash
# Installs the Debian package on a Debian 12 whose first process is systemd, and holds the unit, the CNI plugin and the
# package's scripts to what docs/operations.md says. The Debian is a container of systemd-nspawn: this kernel, and a network,
# processes and files of its own. tests/systemd/guest.sh is what runs in it.
#
#   tests/systemd.sh       usually by `make test-systemd`; root; takes two minutes, the first time three more to fetch Debian
#
# Needs debootstrap, systemd-container and dpkg. PODWIRE_DEB is the package, PODWIRE_INSTALLED
# the DESTDIR of a `make install`, SYSTEMD_CACHE the folder where Debian is kept.
# Several may run at once. Nothing is left behind but that folder.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${SYSTEMD_CACHE:-${CARGO_TARGET_DIR:-$ROOT/target}/systemd}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
SUITE=bookworm
# What the claims are checked with; what podwire needs comes with its package.
INCLUDE=systemd,systemd-sysv,iproute2,iputils-ping,busybox,jq
START_SECONDS_MAX=60
ID=podwire-systemd-$$
mkdir -p "$CACHE"
FOLDER=$(mktemp -d "$CACHE/$ID.XXXXXX")
CONTAINER= INIT=

die() {
  echo "systemd: $*" >&2
  [[ ! -s $FOLDER/console ]] || tail -n 40 "$FOLDER/console" >&2
  exit 1
}
# In a mount namespace: the cgroups as one tree, whatever the machine has, and this script's own part of it.
with_cgroups='mount -t cgroup2 cgroup2 /sys/fs/cgroup'
cleanup() {
  if [[ -n $CONTAINER ]]; then
    # The container's first process takes all others along, and systemd-nspawn.
    kill -KILL "${INIT:-$CONTAINER}" 2>/dev/null || true
    wait "$CONTAINER" 2>/dev/null || true
    unshare --mount bash -c "$with_cgroups && cd /sys/fs/cgroup && [[ ! -d $ID ]] || {
      find $ID -depth -type d -exec rmdir {} +; }" || true
  fi
  rm -rf "$FOLDER"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

for program in debootstrap systemd-nspawn dpkg-deb nsenter; do
  command -v "$program" >/dev/null || die "$program is missing: install debootstrap, systemd-container, dpkg and util-linux"
done
[[ -f ${PODWIRE_DEB:-} ]] || die "no package in PODWIRE_DEB: run make deb"
[[ -d ${PODWIRE_INSTALLED:-} ]] || die "no folder PODWIRE_INSTALLED: run make install with a DESTDIR"

# ---- Debian, and what the package depends on, which is installed in the container: that has no way out ----------------
WANTED="$INCLUDE; $(dpkg-deb --field "$PODWIRE_DEB" Depends)"
fetch_debian() {
  echo "fetching Debian $SUITE into $CACHE"
  local debian=$FOLDER/debian
  debootstrap --variant=minbase --include="$INCLUDE" "$SUITE" "$debian" "$MIRROR" >"$FOLDER/console" 2>&1 || die "cannot fetch Debian"
  cp "$PODWIRE_DEB" "$debian/podwire.deb"
  chroot "$debian" apt-get -qq install --download-only --yes /podwire.deb </dev/null >"$FOLDER/console" 2>&1 ||
    die "cannot fetch what $PODWIRE_DEB depends on"
  rm "$debian/podwire.deb"
  echo "$WANTED" >"$debian/wanted"
  rm -rf "$CACHE/debian" && mv "$debian" "$CACHE/debian"
}
# Held to the end, so that nobody takes away what a container has below it.
exec {lock}>"$CACHE/lock"
has_debian() { [[ $(cat "$CACHE/debian/wanted" 2>/dev/null) == "$WANTED" ]]; }
flock --shared "$lock"
until has_debian; do
  flock --unlock "$lock"
  flock "$lock"
  has_debian || fetch_debian
  flock --unlock "$lock"
  flock --shared "$lock"
done

# ---- the container: files of the cache below a layer in memory, which goes with it -----------------------------------
# bpf(2) is how systemd allows a unit its devices.
mkdir -p "$FOLDER"/{root,layer,given}
cp "$PODWIRE_DEB" "$FOLDER/given/podwire.deb"
cp -r "$PODWIRE_INSTALLED" "$FOLDER/given/installed"
cp "$ROOT/tests/systemd/guest.sh" "$FOLDER/given/"
unshare --mount bash -euc "
  $with_cgroups
  mkdir /sys/fs/cgroup/$ID && echo \$\$ >/sys/fs/cgroup/$ID/cgroup.procs
  cd '$FOLDER'
  mount -t tmpfs layer layer && mkdir layer/upper layer/work
  mount -t overlay -o lowerdir='$CACHE/debian',upperdir=layer/upper,workdir=layer/work overlay root
  mount -t tmpfs run /run
  exec systemd-nspawn --directory=root --machine=node1 --boot --private-network --console=passive --settings=no --register=no \
    --keep-unit --bind-ro='$FOLDER/given:/given' --bind=/dev/net/tun --system-call-filter=bpf" \
  </dev/null >"$FOLDER/console" 2>&1 &
CONTAINER=$!

inside() { nsenter --target "$INIT" --all -- "$@"; }
until=$((SECONDS + START_SECONDS_MAX))
until INIT=$(tr -d ' ' <"/proc/$CONTAINER/task/$CONTAINER/children") && [[ -n $INIT ]] &&
  [[ $(inside systemctl is-system-running 2>/dev/null) == running ]]; do
  kill -0 "$CONTAINER" 2>/dev/null || die "the container ended early"
  ((SECONDS < until)) || die "systemd did not start within $START_SECONDS_MAX s"
  sleep 0.2
done
echo "container: Debian $(inside cat /etc/debian_version), $(inside systemctl --version | head -n 1), Linux $(uname -r)"
# In the background, so that a signal is heeded at once.
inside env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 bash /given/guest.sh </dev/null &
wait $!

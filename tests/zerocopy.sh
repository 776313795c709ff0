#!/usr/bin/env bash
# Passes traffic through an uplink that is bound with XDP_ZEROCOPY: in a guest with a virtio NIC, on emulated hardware,
# since veth and TAP have only copy mode. Node 1 is the guest, node 2 a namespace with the kernel's vxlan device.
#
#   tests/zerocopy.sh      usually by `make test-zerocopy`; root; takes a minute or two, leaves nothing behind
#
# Needs qemu-system-x86_64, busybox-static, cpio and xz-utils. The guest's kernel must be able to do zero-copy on virtio
# (7.2 can, 6.12 can not): Debian's cloud kernel of sid is fetched into a cache and only unpacked there, never installed.
# PODWIRE_BIN_DIR says where the programs are, ZEROCOPY_CACHE where the kernel is kept.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BIN=${PODWIRE_BIN_DIR:-${CARGO_TARGET_DIR:-$ROOT/target}/release}
CACHE=${ZEROCOPY_CACHE:-${CARGO_TARGET_DIR:-$ROOT/target}/zerocopy}
SECONDS_MAX=${SECONDS_MAX:-240}
ID=pwz$$
FOLDER=$(mktemp -d "/tmp/$ID.XXXXXX")
NODE1=172.31.0.1 NODE2=172.31.0.2 NODE1_6=fd00:31::1
NODE1_MAC=52:54:00:00:00:01 NODE2_MAC=02:00:00:00:00:02 NODE2_VTEP_MAC=02:00:00:00:02:01
TRANSFER_BYTES=$((8 << 20))

die() {
  echo "zerocopy: $*" >&2
  [[ ! -s $FOLDER/console ]] || tail -n 60 "$FOLDER/console" >&2
  exit 1
}
cleanup() {
  for name in node2 pod2; do
    ip netns pids "$ID-$name" 2>/dev/null | xargs -r kill 2>/dev/null || true
    ip netns del "$ID-$name" 2>/dev/null || true
  done
  wait 2>/dev/null || true
  rm -rf "$FOLDER"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

for program in qemu-system-x86_64 busybox cpio xz nsenter; do
  command -v "$program" >/dev/null || die "$program is missing: install qemu-system-x86, busybox-static, cpio, xz-utils and util-linux"
done
[[ -x $BIN/podwired && -x $BIN/podwire ]] || die "no podwired and podwire in $BIN: run make build"

# ---- the guest's kernel ------------------------------------------------------------------------------------------
# apt with lists, cache and sources of its own: the machine's are not touched.
fetch_kernel() {
  mkdir -p "$CACHE"/{lists/partial,archives/partial,debs}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" >"$CACHE/sources"
  local apt=(apt-get -qq -o "Dir::State::lists=$CACHE/lists" -o "Dir::Cache=$CACHE" -o "Dir::Etc::sourcelist=$CACHE/sources"
    -o Dir::Etc::sourceparts=- -o Dir::State::status=/dev/null -o APT::Sandbox::User=root)
  "${apt[@]}" update || die "cannot read Debian's list of sid"
  local image
  image=$(apt-cache "${apt[@]:1}" depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  local version=${image#linux-image-}
  (cd "$CACHE/debs" && "${apt[@]}" download "linux-binary-$version" "linux-modules-$version") ||
    die "cannot fetch the kernel $version of sid"
  for package in "$CACHE"/debs/*.deb; do dpkg-deb -x "$package" "$CACHE/kernel.new"; done
  mv "$CACHE/kernel.new" "$CACHE/kernel"
}
[[ -d $CACHE/kernel ]] || fetch_kernel
MODULES=$(echo "$CACHE"/kernel/usr/lib/modules/*)
[[ -f $MODULES/vmlinuz ]] || die "no kernel in $CACHE: remove that folder and run again"

# ---- the guest's files: busybox, iproute2, podwire and the libraries these want -----------------------------------
pack_guest() {
  local tree=$FOLDER/tree program library
  mkdir -p "$tree"/{bin,sbin,etc,lib,lib64,modules,proc,sys,dev,run,tmp,var}
  cp "$(command -v busybox)" "$tree/bin/busybox"
  for applet in sh mkfifo mount mkdir mknod insmod ping nc sed wc sha256sum cut tr seq sleep uname sync poweroff cat; do
    ln -s busybox "$tree/bin/$applet"
  done
  for program in "$(command -v ip)" "$BIN/podwired" "$BIN/podwire"; do
    cp "$program" "$tree/sbin/"
    ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
      mkdir -p "$tree$(dirname "$library")"
      cp -nL "$library" "$tree$library"
    done
  done
  for module in net/core/failover drivers/net/net_failover drivers/net/virtio_net drivers/net/tun; do
    xz -dc "$MODULES/kernel/$module.ko.xz" >"$tree/modules/$(basename "$module").ko"
  done
  declare -p NODE1 NODE1_6 NODE2 NODE2_MAC NODE2_VTEP_MAC | sed 's/^declare -- //' >"$tree/etc/zerocopy.conf"
  cp "$ROOT/tests/zerocopy/guest.sh" "$tree/init"
  chmod +x "$tree/init"
  (cd "$tree" && find . | cpio --quiet -o -H newc) | gzip -1 >"$FOLDER/initramfs"
}

# ---- the other node, as flannel sets it up -------------------------------------------------------------------------
node2() { ip netns exec "$ID-node2" "$@"; }
other_node() {
  ip netns add "$ID-node2" && ip netns add "$ID-pod2"
  node2 ip link set lo up
  node2 ip tuntap add wire0 mode tap multi_queue vnet_hdr
  node2 ip link set wire0 address "$NODE2_MAC" up
  node2 ip address add "$NODE2/24" dev wire0
  node2 sysctl -qw net.ipv4.ip_forward=1
  node2 ip link add flannel.1 address "$NODE2_VTEP_MAC" type vxlan id 1 dstport 4789 local "$NODE2" dev wire0 nolearning
  node2 ip link set flannel.1 mtu 1450 up
  node2 ip link add eth0 netns "$ID-pod2" type veth peer name pod2
  node2 ip link set pod2 up
  node2 ip address add 10.244.2.1/24 dev pod2
  ip -n "$ID-pod2" address add 10.244.2.10/24 dev eth0
  ip -n "$ID-pod2" link set eth0 mtu 1450 up
  ip -n "$ID-pod2" route add default via 10.244.2.1
}
to_guest() { # VTEP MAC of node 1, which the guest tells
  node2 ip neigh replace "$NODE1" lladdr "$NODE1_MAC" dev wire0
  node2 bridge fdb append "$1" dev flannel.1 dst "$NODE1"
  node2 ip neigh replace 10.244.1.0 lladdr "$1" dev flannel.1
  node2 ip route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
}

said() { touch "$FOLDER/console" && tr -d '\r' <"$FOLDER/console" | sed -n "s/^.*zerocopy: $1 //p" | tail -n 1; }
waits_for() { # WORD: what the guest says after it
  local until=$((SECONDS + SECONDS_MAX))
  while [[ -z $(said "$1") ]]; do
    kill -0 "$QEMU" 2>/dev/null || die "the guest ended early (it says: $(said end))"
    ((SECONDS < until)) || die "the guest did not say \"$1\" within $SECONDS_MAX s"
    sleep 0.5
  done
  said "$1"
}

pack_guest
other_node
head -c "$TRANSFER_BYTES" /dev/urandom >"$FOLDER/payload"
ip netns exec "$ID-pod2" busybox nc -l -p 7000 <"$FOLDER/payload" >/dev/null 2>&1 &
ip netns exec "$ID-node2" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -accel tcg -cpu max -smp 1 -m 768 \
  -kernel "$MODULES/vmlinuz" -initrd "$FOLDER/initramfs" -append "console=ttyS0 panic=-1 quiet" -serial "file:$FOLDER/console" \
  -netdev tap,id=wire,ifname=wire0,script=no,downscript=no,queues=4,vhost=off \
  -device "virtio-net-pci,netdev=wire,mac=$NODE1_MAC,mq=on,vectors=10,iommu_platform=on,disable-legacy=on" </dev/null 2>"$FOLDER/qemu" &
QEMU=$!
vtep_mac=$(waits_for vtep_mac)
to_guest "$vtep_mac"
echo "guest: Linux $(said kernel), VTEP MAC $vtep_mac"
end=$(waits_for end)
[[ $end == done ]] || die "the guest gave up: $end"

echo "ping from the guest's pod: $(said ping)"
[[ $(said ping) == *" 0% packet loss"* ]] || die "pings were lost"
read -r bytes sum <<<"$(said received)"
echo "TCP into the guest's pod: $bytes bytes"
[[ $bytes == "$TRANSFER_BYTES" && $sum == $(sha256sum "$FOLDER/payload" | cut -d' ' -f1) ]] || die "the transfer arrived damaged"
echo "uplink: $(said uplink)"
[[ $(said uplink) == *zero* ]] || die "the uplink was not bound with zero-copy"
tr -d '\r' <"$FOLDER/console" | sed -n 's/^status: /  /p'
echo "zero-copy works"

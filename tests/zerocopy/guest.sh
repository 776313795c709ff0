#!/bin/sh
# The guest's first process: node1 with one pod, its uplink an AF_XDP socket on a virtio NIC.
#
# tests/zerocopy.sh packs this as /init. What the host looks for are the lines that begin with "zerocopy:".
# busybox prefers its own ip, which knows no namespaces.
ip() { /sbin/ip "$@"; }
say() { echo "zerocopy: $*"; }
end() {
  say "end $1"
  sync
  poweroff -f
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /run/netns /tmp /dev/net /var/lib
. /etc/zerocopy.conf
for module in failover net_failover virtio_net tun; do
  insmod "/modules/$module.ko" || end "no module $module"
done
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ulimit -l unlimited

ip link set lo up
ip link set eth0 up
ip address add "$NODE1/24" dev eth0
ip -6 address add "$NODE1_6/64" dev eth0 nodad
ip neigh replace "$NODE2" lladdr "$NODE2_MAC" dev eth0
say "kernel $(uname -r)"

cat >/etc/podwired.toml <<CONFIG
[node]
name = "node1"
pod_cidrs = ["10.244.1.0/24"]
cluster_cidrs = ["10.244.0.0/16"]
[host]
interface = "podwire0"
[uplink]
kind = "xdp"
address = "$NODE1"
device = "eth0"
mode = "zerocopy"
[control]
socket = "/run/podwired.sock"
state_dir = "/var/lib/podwire"
CONFIG
export PODWIRE_SOCKET=/run/podwired.sock
podwired --config /etc/podwired.toml >/tmp/podwired.log 2>&1 &
for _ in $(seq 60); do
  podwire status >/dev/null 2>&1 && break
  sleep 1
done
ip netns add pod
podwire port add pod --netns /run/netns/pod --ifname eth0 --ip 10.244.1.10/24 || end "no port"
podwire vtep add node2 --remote "$NODE2" --mac "$NODE2_VTEP_MAC"
podwire route add 10.244.2.0/24 via node2
say "vtep_mac $(podwire -o json status | sed -n 's/.*"vtep_mac": "\([^"]*\)".*/\1/p')"
sed 's/^/podwired.log: /' /tmp/podwired.log

# The other node reads our VTEP's MAC from the console; once it is set up there, pings come through.
for _ in $(seq 60); do
  ip netns exec pod ping -c 1 -W 1 10.244.2.10 >/dev/null 2>&1 && break
done
ip netns exec pod ping -c 20 -i 0.2 -W 2 10.244.2.10 | sed -n 's/^\(.* packets transmitted.*\)$/zerocopy: ping \1/p'
# What comes from the other side, whole: its checksum is compared there. An input without an end, since the other side
# would stop at ours.
mkfifo /tmp/never
ip netns exec pod nc -w 60 10.244.2.10 7000 >/tmp/received <>/tmp/never
say "received $(wc -c </tmp/received) $(sha256sum /tmp/received | cut -d' ' -f1)"
podwire status | sed 's/^/status: /'
podwire stats | sed 's/^/stats: /'
say "uplink $(podwire -o json status | tr -d ' \n' | sed -n 's/.*"uplink":{\(.*\)/\1/p' | cut -c1-300)"
end done

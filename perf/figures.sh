#!/usr/bin/env bash
# Measures podwire beside the kernel on this machine, in namespaces of its own, and prints a table of ratios.
#
#   perf/figures.sh [ROUNDS]     default 5; medians of interleaved rounds; needs root, ethtool, iperf3, sockperf, jq
#
# One node: a TCP stream and request/response between two pods, beside a kernel bridge between the same kind of
# namespaces; first ping after silence, idle CPU, and a stream beside 250 idle pods. Two nodes: a TCP stream, beside
# kernel VXLAN as flannel sets it up, over a veth as it is and over one without offloads. Takes about 9 minutes. PODWIRE_BIN_DIR says
# where the release binaries are.
set -euo pipefail

ROUNDS=${1:-5}
SECONDS_EACH=${SECONDS_EACH:-4}
IDLE_SECONDS=${IDLE_SECONDS:-60}
IDLE_PODS=250
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BIN=${PODWIRE_BIN_DIR:-$ROOT/target/release}
ID=pwf$$
FOLDER=$(mktemp -d "/tmp/$ID.XXXXXX")
PIDS=()

ns() { echo "$ID-$1"; }
in_ns() { ip netns exec "$(ns "$1")" "${@:2}"; }
cleanup() {
  for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null && kill -CONT "$pid" || true; done
  wait 2>/dev/null || true
  ip -o netns list | awk -v id="$ID-" 'index($1, id) == 1 { print $1 }' | while read -r name; do
    ip netns pids "$name" | xargs -r kill 2>/dev/null || true
    ip netns del "$name"
  done
  rm -rf "$FOLDER"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

namespace() { ip netns add "$(ns "$1")" && in_ns "$1" ip link set lo up; }
no_bridge_netfilter() { # the kernel at its best; there is nothing to switch off where the module is not loaded
  local family
  for family in ip ip6 arp; do in_ns "$1" sysctl -qw "net.bridge.bridge-nf-call-${family}tables=0" 2>/dev/null || true; done
}
no_offloads() { in_ns "$1" ethtool -K u tso off gso off gro off tx-udp-segmentation off >/dev/null; }
median() { sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

# ---- what is measured ------------------------------------------------------------------------------------------
stream_gbps() { # FROM TO ADDRESS
  in_ns "$2" iperf3 -s -1 -D -I "$FOLDER/iperf.pid" >/dev/null
  sleep 0.3
  in_ns "$1" iperf3 -J -c "$3" -t "$SECONDS_EACH" -O 1 | jq '.end.sum_received.bits_per_second / 1e9'
}
round_trip_us() { # FROM TO ADDRESS: median one-way time as sockperf has it
  ip netns exec "$(ns "$2")" sockperf server --tcp -i 0.0.0.0 -p 11111 >/dev/null 2>&1 &
  local server=$!
  sleep 0.4
  in_ns "$1" sockperf ping-pong --tcp -i "$3" -p 11111 -t "$SECONDS_EACH" 2>&1 |
    sed 's/\x1b\[[0-9;]*m//g' | awk '/percentile 50.000/ { print $NF }'
  kill "$server" && wait "$server" 2>/dev/null || true
}

# ---- the two sides ---------------------------------------------------------------------------------------------
kernel_bridge() {
  namespace kb && in_ns kb ip link add br0 type bridge && in_ns kb ip link set br0 up
  no_bridge_netfilter kb
  for n in 1 2; do
    namespace "k$n"
    ip link add eth0 netns "$(ns "k$n")" type veth peer name "v$n" netns "$(ns kb)"
    in_ns "k$n" ip address add "10.9.0.$n/24" dev eth0 && in_ns "k$n" ip link set eth0 up
    in_ns kb ip link set "v$n" master br0 up
  done
}
podwire() { PODWIRE_SOCKET="$FOLDER/$1.sock" "$BIN/podwire" "${@:2}" >/dev/null; }
podwired() { # NODE NUMBER POLL CPUS [UNDERLAY]
  local cpus=""
  [[ -z $4 ]] || cpus="cpus = \"$4\""
  {
    printf '[node]\nname = "%s"\npod_cidrs = ["10.24%s.0.0/16"]\ncluster_cidrs = ["10.24%s.0.0/16"]\n' "$1" "$2" "$2"
    printf '[host]\ninterface = "podwire0"\n[workers]\npoll = "%s"\n%s\n' "$3" "$cpus"
    [[ -z ${5:-} ]] || printf '[uplink]\nkind = "udp"\naddress = "%s"\n' "$5"
    printf '[control]\nsocket = "%s"\nstate_dir = "%s"\n' "$FOLDER/$1.sock" "$FOLDER/$1.state"
  } >"$FOLDER/$1.toml"
  ip netns exec "$(ns "$1")" "$BIN/podwired" --config "$FOLDER/$1.toml" 2>"$FOLDER/$1.log" &
  PIDS+=($!)
  for _ in $(seq 100); do podwire "$1" status 2>/dev/null && return; sleep 0.05; done
  cat "$FOLDER/$1.log" >&2
  exit 1
}
pod() { # NODE POD ADDRESS
  namespace "$2"
  podwire "$1" port add "$2" --netns "$(ns "$2")" --ip "$3"
}
switch_node() { # NODE NUMBER POLL CPUS: a node of its own with two pods
  namespace "$1"
  podwired "$1" "$2" "$3" "$4"
  pod "$1" "$1a" "10.24$2.1.1/16"
  pod "$1" "$1b" "10.24$2.1.2/16"
}

interleaved() { # MEASURE UNIT NAME=FROM,TO,ADDRESS ... : the first is what the others are compared with
  local measure=$1 unit=$2 round side name from to address base=""
  shift 2
  for round in $(seq "$ROUNDS"); do
    for side in "$@"; do
      IFS=',' read -r from to address <<<"${side#*=}"
      # Nobody spins, or keeps a core awake, while the kernel is measured.
      case $side in kernel*) kill -STOP "${PIDS[@]}" ;; *) kill -CONT "${PIDS[@]}" ;; esac
      "$measure" "$from" "$to" "$address" >>"$FOLDER/$measure.${side%%=*}"
    done
  done
  for side in "$@"; do
    name=${side%%=*}
    value=$(median <"$FOLDER/$measure.$name")
    base=${base:-$value}
    printf '  %-34s %8.2f %s   ratio %s\n' "${name//_/ }" "$value" "$unit" "$(ratio "$value" "$base")"
    rm "$FOLDER/$measure.$name"
  done
  kill -CONT "${PIDS[@]}"
}

echo "$(uname -sr), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $ROUNDS rounds"
kernel_bridge
switch_node ad 1 adaptive ""
echo "same node, one TCP stream"
interleaved stream_gbps Gb/s kernel_bridge=k1,k2,10.9.0.2 podwire_adaptive=ada,adb,10.241.1.2
switch_node two 3 adaptive 0-1
interleaved stream_gbps Gb/s kernel_bridge=k1,k2,10.9.0.2 podwire_2_workers=twoa,twob,10.243.1.2
switch_node bu 2 busy ""
echo "same node, request/response (half of the round trip, median)"
interleaved round_trip_us us kernel_bridge=k1,k2,10.9.0.2 podwire_busy=bua,bub,10.242.1.2
kill "${PIDS[-1]}" # a busy worker would take a core from what comes now
unset 'PIDS[-1]'
sleep 0.5
interleaved round_trip_us us kernel_bridge=k1,k2,10.9.0.2 podwire_adaptive=ada,adb,10.241.1.2

echo "first ping after 10 s of silence"
sleep 10
in_ns ada ping -c 1 10.241.1.2 | sed -n 's/.*time=/  /p'

echo "idle, two pods, $IDLE_SECONDS s"
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
daemon=${PIDS[0]}
before=$(ticks "$daemon")
sleep "$IDLE_SECONDS"
awk -v t="$(($(ticks "$daemon") - before))" -v s="$IDLE_SECONDS" -v hz="$(getconf CLK_TCK)" \
  'BEGIN { printf "  %.2f %% of a core\n", 100 * t / hz / s }'

kernel_vxlan() { # two nodes as flannel sets them up, one pod each
  local n other
  for n in 1 2; do namespace "x$n" && in_ns "x$n" sysctl -qw net.ipv4.ip_forward=1; no_bridge_netfilter "x$n"; done
  ip link add u netns "$(ns x1)" type veth peer name u netns "$(ns x2)"
  for n in 1 2; do
    other=$((3 - n))
    in_ns "x$n" ip address add "172.31.9.$n/30" dev u && in_ns "x$n" ip link set u up
    in_ns "x$n" ip link add flannel.1 address "02:00:00:00:09:0$n" type vxlan id 1 dstport 8472 local "172.31.9.$n" nolearning
    in_ns "x$n" ip link add cni0 type bridge && in_ns "x$n" ip address add "10.25$n.0.1/24" dev cni0
    in_ns "x$n" ip link set cni0 mtu 1450 up && in_ns "x$n" ip address add "10.25$n.0.0/32" dev flannel.1
    in_ns "x$n" ip link set flannel.1 up
    in_ns "x$n" ip route add "10.25$other.0.0/24" via "10.25$other.0.0" dev flannel.1 onlink
    in_ns "x$n" ip neighbour add "10.25$other.0.0" lladdr "02:00:00:00:09:0$other" dev flannel.1 nud permanent
    in_ns "x$n" bridge fdb append "02:00:00:00:09:0$other" dev flannel.1 dst "172.31.9.$other"
    namespace "x${n}p"
    ip link add eth0 mtu 1450 netns "$(ns "x${n}p")" type veth peer name p mtu 1450 netns "$(ns "x$n")"
    in_ns "x$n" ip link set p master cni0 up
    in_ns "x${n}p" ip address add "10.25$n.0.2/24" dev eth0 && in_ns "x${n}p" ip link set eth0 up
    in_ns "x${n}p" ip route add default via "10.25$n.0.1"
  done
}
podwire_vxlan() { # two podwire nodes over the same kind of cable, one pod each
  local n other mac
  for n in 1 2; do namespace "w$n"; done
  ip link add u netns "$(ns w1)" type veth peer name u netns "$(ns w2)"
  for n in 1 2; do
    in_ns "w$n" ip address add "172.31.8.$n/30" dev u && in_ns "w$n" ip link set u up
    podwired "w$n" "$((5 + n))" adaptive "$(((n - 1) % $(nproc)))" "172.31.8.$n"
    pod "w$n" "w${n}p" "10.24$((5 + n)).0.2/16"
  done
  for n in 1 2; do
    other=$((3 - n))
    mac=$(PODWIRE_SOCKET="$FOLDER/w$other.sock" "$BIN/podwire" status -o json | jq -r .vtep_mac)
    podwire "w$n" vtep add peer --remote "172.31.8.$other" --mac "$mac"
    podwire "w$n" route add "10.24$((5 + other)).0.0/16" via peer
  done
}
echo "across nodes, one TCP stream, offloading wire"
kernel_vxlan
podwire_vxlan
interleaved stream_gbps Gb/s kernel_vxlan=x1p,x2p,10.252.0.2 podwire=w1p,w2p,10.247.0.2
echo "across nodes, one TCP stream, wire without offloads"
for node in x1 x2 w1 w2; do no_offloads "$node"; done
interleaved stream_gbps Gb/s kernel_vxlan=x1p,x2p,10.252.0.2 podwire=w1p,w2p,10.247.0.2

echo "one stream beside $IDLE_PODS idle pods"
switch_node full 4 adaptive ""
for n in $(seq "$IDLE_PODS"); do pod full "i$n" "10.244.2.$n/16"; done
interleaved stream_gbps Gb/s podwire_2_pods=ada,adb,10.241.1.2 podwire_252_pods=fulla,fullb,10.244.1.2

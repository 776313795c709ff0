#!/usr/bin/env bash
# Two namespaced nodes, a podwired on each, two pods behind each: live traffic, and every claim checked.
#
#   tests/demo.sh            run it; leaves nothing behind, exits non-zero if anything shown is not true
#   KEEP=1 tests/demo.sh     leave it running afterwards, and say how to look around
#   tests/demo.sh down ID    take down one that was left running
#
# Usually started by `make demo`, which builds the programs. PODWIRE_BIN_DIR says where they are; IPERF_SECONDS is
# the length of one measurement. Several demos may run at once: names, folders and processes bear the demo's ID.
set -euo pipefail

# ---- the topology's numbers, all in one place ------------------------------------------------------------------
NODES=(node1 node2)
PODS=(pod1a pod1b pod2a pod2b)
VNI=1
VXLAN_PORT=4789
CLUSTER4=10.244.0.0/16
CLUSTER6=fd00:244::/32
declare -A UNDERLAY4=([node1]=172.31.0.1 [node2]=172.31.0.2) UNDERLAY6=([node1]=fd00:31::1 [node2]=fd00:31::2)
UNDERLAY4_BITS=30
UNDERLAY6_BITS=64
declare -A CIDR4=([node1]=10.244.1.0/24 [node2]=10.244.2.0/24) CIDR6=([node1]=fd00:244:1::/64 [node2]=fd00:244:2::/64)
declare -A GATEWAY4=([node1]=10.244.1.1 [node2]=10.244.2.1)
declare -A NODE_OF=([pod1a]=node1 [pod1b]=node1 [pod2a]=node2 [pod2b]=node2)
declare -A POD4=([pod1a]=10.244.1.10 [pod1b]=10.244.1.11 [pod2a]=10.244.2.10 [pod2b]=10.244.2.11)
declare -A POD6=([pod1a]=fd00:244:1::a [pod1b]=fd00:244:1::b [pod2a]=fd00:244:2::a [pod2b]=fd00:244:2::b)

IPERF_SECONDS=${IPERF_SECONDS:-2}
KEEP=${KEEP:-}
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BIN=${PODWIRE_BIN_DIR:-${CARGO_TARGET_DIR:-$ROOT/target}/release}
START_SECONDS_MAX=15
STOP_SECONDS_MAX=5
PASSED=0
FAILED=()
FIGURES=()

# ---- names of one demo ----------------------------------------------------------------------------------------
name_demo() { # ID
  ID=$1
  FOLDER=${TMPDIR:-/tmp}/podwire-demo-$ID
}
netns() { echo "$ID-$1"; } # node or pod
socket() { echo "$FOLDER/$1.sock"; }

# ---- telling -----------------------------------------------------------------------------------------------------
chapter() { printf '\n== %s\n' "$*"; }
prompt() { printf '%s# %s\n' "$1" "${*:2}"; }
indented() { sed 's/^/    /'; }
pass() {
  PASSED=$((PASSED + 1))
  printf '  PASS  %s\n' "$1"
}
fail() {
  FAILED+=("$1")
  printf '  FAIL  %s\n' "$1"
}
die() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}
# Says whether the sentence is true: the rest is a command that is silent and ends with 0 if it is.
claim() { # SENTENCE COMMAND...
  if "${@:2}"; then pass "$1"; else fail "$1"; fi
}

# ---- doing -------------------------------------------------------------------------------------------------------
inside() { nsenter --net="/run/netns/$(netns "$1")" "${@:2}"; } # PLACE COMMAND...
podwire() { "$BIN/podwire" --socket "$(socket "$1")" "${@:2}"; }  # NODE ARGUMENTS...
# Shows a podwire command as one would type it on the node, runs it, and shows what it says.
podwire_shown() { # NODE ARGUMENTS...
  prompt "$1" podwire "${@:2}"
  podwire "$@" 2>&1 | indented
}
json() { podwire "$1" -o json "${@:2}"; }

# One line of the drawing: the same cell for either node.
cells() { # LEFT RIGHT
  printf '  |  %-34s|        |  %-34s|\n' "$1" "$2"
}
draw() {
  local edge='+------------------------------------+'
  printf '\n   %-46s%s\n  %s        %s\n' "node1 (a namespace)" " node2 (a namespace)" "$edge" "$edge"
  cells "pod1a            pod1b" "pod2a            pod2b"
  cells "$(printf '%-17s%s' "${POD4[pod1a]}" "${POD4[pod1b]}")" "$(printf '%-17s%s' "${POD4[pod2a]}" "${POD4[pod2b]}")"
  cells "$(printf '%-17s%s' "${POD6[pod1a]}" "${POD6[pod1b]}")" "$(printf '%-17s%s' "${POD6[pod2a]}" "${POD6[pod2b]}")"
  cells "  | TAP            | TAP" "  | TAP            | TAP"
  cells "+-+----------------+-----------+" "+-+----------------+-----------+"
  cells "|           podwired           |" "|           podwired           |"
  cells "+-+----------------+-----------+" "+-+----------------+-----------+"
  cells "  | TAP podwire0   | UDP socket" "  | TAP podwire0   | UDP socket"
  cells "the node's stack   |" "the node's stack   |"
  cells "${GATEWAY4[node1]}         |" "${GATEWAY4[node2]}         |"
  cells "                 eth0" "                 eth0"
  cells "                 ${UNDERLAY4[node1]}" "                 ${UNDERLAY4[node2]}"
  cells "                 ${UNDERLAY6[node1]}" "                 ${UNDERLAY6[node2]}"
  printf '  %s        %s\n' "${edge:0:20}+${edge:21}" "${edge:0:20}+${edge:21}"
  printf '%23s%46s\n' "|" "|"
  printf '%23s---- veth cable, VXLAN %-3s on UDP %-5s -----+\n\n' "+" "$VNI" "$VXLAN_PORT"
}

# ---- setting up ------------------------------------------------------------------------------------------------
check_machine() {
  [[ $(id -u) == 0 ]] || die "it makes network namespaces, which needs root: run it as root or with sudo"
  local program
  for program in ip ss nsenter ping iperf3 jq; do
    command -v "$program" >/dev/null || die "$program is missing: run \`make deps\`"
  done
  for program in podwired podwire podwire-cni; do
    [[ -x $BIN/$program ]] || die "$BIN/$program is missing: run \`make build\`, or set PODWIRE_BIN_DIR"
  done
}

make_namespaces() {
  local place
  for place in "${NODES[@]}" "${PODS[@]}"; do
    ip netns add "$(netns "$place")"
    ip -n "$(netns "$place")" link set lo up
  done
  ip link add eth0 netns "$(netns node1)" type veth peer name eth0 netns "$(netns node2)"
  for place in "${NODES[@]}"; do
    # As every Kubernetes node has it.
    inside "$place" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
    ip -n "$(netns "$place")" addr add "${UNDERLAY4[$place]}/$UNDERLAY4_BITS" dev eth0
    ip -n "$(netns "$place")" addr add "${UNDERLAY6[$place]}/$UNDERLAY6_BITS" dev eth0 nodad
    ip -n "$(netns "$place")" link set eth0 up
  done
}

# The CPUs this process may use, one a line.
allowed_cpus() {
  sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status | tr , '\n' | while IFS=- read -r first last; do
    seq "$first" "${last:-$first}"
  done
}
# The nodes of the demo take turns at the machine's CPUs: by default both would pin their worker to the first.
cpu_of() { # NODE
  local cpus number=${1#node}
  mapfile -t cpus < <(allowed_cpus)
  echo "${cpus[$(((number - 1) % ${#cpus[@]}))]}"
}
write_config() { # NODE
  cat >"$FOLDER/$1.toml" <<TOML
[node]
name = "$1"
pod_cidrs = ["${CIDR4[$1]}", "${CIDR6[$1]}"]
cluster_cidrs = ["$CLUSTER4", "$CLUSTER6"]
[host]
interface = "podwire0"
[uplink]
kind = "udp"
address = ["${UNDERLAY4[$1]}", "${UNDERLAY6[$1]}"]
[vxlan]
vni = $VNI
port = $VXLAN_PORT
[workers]
cpus = "$(cpu_of "$1")"
[control]
socket = "$(socket "$1")"
state_dir = "$FOLDER/$1.state"
TOML
}

start_daemon() { # NODE
  prompt "$1" podwired --config "$1.toml"
  indented <"$FOLDER/$1.toml"
  # Not through `inside`: then $! would be a shell's and not the daemon's.
  nsenter --net="/run/netns/$(netns "$1")" "$BIN/podwired" --config "$FOLDER/$1.toml" </dev/null >"$FOLDER/$1.log" 2>&1 &
  echo "$!" >"$FOLDER/$1.pid"
  local deadline=$((SECONDS + START_SECONDS_MAX))
  until podwire "$1" status >/dev/null 2>&1; do
    kill -0 "$(<"$FOLDER/$1.pid")" 2>/dev/null || die "podwired on $1 ended at its start"
    ((SECONDS < deadline)) || die "podwired on $1 gave no answer in $START_SECONDS_MAX s"
    sleep 0.1
  done
}

add_pod() { # POD
  podwire_shown "${NODE_OF[$1]}" port add "$1" --kind tap --netns "$(netns "$1")" --ifname eth0 \
    --ip "${POD4[$1]}/24" --ip "${POD6[$1]}/64"
}

# Tells one node, over gRPC, where the other is and which pods are there.
introduce() { # NODE OTHER
  local status mac mac6 cidr
  status=$(json "$2" status)
  mac=$(jq -er .vtep_mac <<<"$status")
  mac6=$(jq -er '.vtep_mac6 // .vtep_mac' <<<"$status")
  podwire_shown "$1" vtep add "$2" --remote "${UNDERLAY4[$2]}" --mac "$mac" --remote "${UNDERLAY6[$2]}" --mac "$mac6"
  for cidr in "${CIDR4[$2]}" "${CIDR6[$2]}"; do
    podwire_shown "$1" route add "$cidr" via "$2"
  done
}

# ---- traffic -----------------------------------------------------------------------------------------------------
ping_shown() { # FROM ADDRESS OPTIONS...
  prompt "$1" ping -n "${@:3}" "$2"
  inside "$1" ping -n -q -i 0.1 -W 2 "${@:3}" "$2" 2>&1 | grep -E 'packets transmitted|^rtt' | indented
}
# ping ends with 0 when one answer came; the claim is that all came.
answers() { # FROM ADDRESS SENTENCE OPTIONS...
  local text
  text=$(ping_shown "$1" "$2" -c 3 "${@:4}") || true
  echo "$text"
  claim "$3" grep -q '3 received' <<<"$text"
}
silent() { # FROM ADDRESS SENTENCE
  local text
  text=$(ping_shown "$1" "$2" -c 2) || true
  echo "$text"
  claim "$3" grep -q ' 0 received' <<<"$text"
}

listens() { inside "$1" ss -Hltn "sport = :$2" | grep -q LISTEN; } # PLACE PORT

# Runs iperf3 from one place to another's address and prints the figure in Gb/s; nothing when it fails.
measure() { # FROM TO ADDRESS OPTIONS...
  local port=5201 server answer deadline=$((SECONDS + 5))
  nsenter --net="/run/netns/$(netns "$2")" iperf3 -s -1 -B "$3" -p "$port" </dev/null >/dev/null 2>&1 &
  server=$!
  echo "$server" >"$FOLDER/iperf3.pid"
  until listens "$2" "$port" || ((SECONDS >= deadline)); do sleep 0.05; done
  answer=$(inside "$1" iperf3 -J -c "$3" -p "$port" -t "$IPERF_SECONDS" --connect-timeout 5000 "${@:4}" </dev/null) || true
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  rm -f "$FOLDER/iperf3.pid"
  jq -r 'if .error then empty else .end.sum_received.bits_per_second / 1e9 * 100 | round / 100 end' <<<"$answer" || true
}
streams() { # FROM TO ADDRESS SENTENCE OPTIONS...
  local gbps
  prompt "$1" iperf3 -c "$3" -t "$IPERF_SECONDS" "${@:5}"
  gbps=$(measure "$1" "$2" "$3" "${@:5}")
  echo "    ${gbps:-no} Gb/s"
  claim "$4" awk -v "gbps=${gbps:-0}" 'BEGIN { exit !(gbps > 0.01) }'
  FIGURES+=("$(printf '%8s Gb/s  %s' "${gbps:-none}" "$4")")
}

# ---- asking ------------------------------------------------------------------------------------------------------
trace_says() { # NODE POD ADDRESS VERDICT SENTENCE
  local verdict
  podwire_shown "$1" trace --in "$2" --dst "$3" --proto tcp --dport 80 || true
  verdict=$(json "$1" trace --in "$2" --dst "$3" --proto tcp --dport 80 | jq -r '[.. | .verdict? // empty][0]') || true
  claim "$5 (verdict: $verdict)" test "$verdict" = "$4"
}
dropped() { # NODE REASON
  json "$1" drops | jq --arg reason "$2" '[.. | objects | select(.reason? == $reason) | .frames | tonumber] | add // 0'
}
forwarded() { # NODE
  json "$1" stats | jq '.totals.forward // 0'
}

# ---- the story -----------------------------------------------------------------------------------------------
story_of_one_node() {
  chapter "1. One node: pods on the same switch"
  answers pod1a "${POD4[pod1b]}" "pod1a reaches pod1b on its node over IPv4"
  answers pod1a "${POD6[pod1b]}" "pod1a reaches pod1b on its node over IPv6"
  answers pod1a "${GATEWAY4[node1]}" "the switch answers for the gateway"
  answers node1 "${POD4[pod1a]}" "node1 reaches its own pod over IPv4"
  answers node1 "${POD6[pod1a]}" "node1 reaches its own pod over IPv6"
  answers pod1a "${UNDERLAY4[node1]}" "pod1a reaches its node's own address, through the node's stack"
  streams pod1a pod1b "${POD4[pod1b]}" "same node, IPv4"
  streams pod1a pod1b "${POD4[pod1b]}" "same node, IPv4, the other way" -R
  streams pod1a pod1b "${POD6[pod1b]}" "same node, IPv6"
  streams node1 pod1a "${POD4[pod1a]}" "node to its own pod, IPv4"
}

story_of_the_route() {
  chapter "2. Two nodes: a route over gRPC"
  silent pod1a "${POD4[pod2a]}" "without a route pod1a does not reach pod2a"
  trace_says node1 pod1a "${POD4[pod2a]}" drop:no_route "the switch says why"
  introduce node1 node2
  introduce node2 node1
  podwire_shown node1 route list
  trace_says node1 pod1a "${POD4[pod2a]}" forward "now the switch sends it to node2"
}

story_of_two_nodes() {
  chapter "3. Across nodes, through VXLAN"
  local mtu
  mtu=$(ip -n "$(netns pod1a)" -j link show dev eth0 | jq '.[0].mtu')
  answers pod1a "${POD4[pod2a]}" "pod1a reaches pod2a over IPv4"
  answers pod2a "${POD4[pod1a]}" "pod2a reaches pod1a over IPv4"
  answers pod1a "${POD6[pod2b]}" "pod1a reaches pod2b over IPv6"
  answers pod2b "${POD6[pod1a]}" "pod2b reaches pod1a over IPv6"
  answers pod1a "${POD4[pod2a]}" "a packet of the pods' MTU ($mtu bytes) passes whole over IPv4" -M "do" -s $((mtu - 28))
  answers pod1a "${POD6[pod2a]}" "a packet of the pods' MTU ($mtu bytes) passes whole over IPv6" -M "do" -s $((mtu - 48))
  answers node1 "${POD4[pod2a]}" "node1 reaches a pod of node2 over IPv4"
  answers node1 "${POD6[pod2a]}" "node1 reaches a pod of node2 over IPv6"
  answers pod2a "${GATEWAY4[node1]}" "pod2a reaches node1"
  streams pod1a pod2a "${POD4[pod2a]}" "across nodes, IPv4"
  streams pod1a pod2a "${POD4[pod2a]}" "across nodes, IPv4, the other way" -R
  streams pod1a pod2a "${POD6[pod2a]}" "across nodes, IPv6"
  streams pod1a pod2a "${POD6[pod2a]}" "across nodes, IPv6, the other way" -R
  streams node1 pod2a "${POD4[pod2a]}" "node to a remote pod, IPv4"
  streams pod2a node1 "${GATEWAY4[node1]}" "pod to a remote node, IPv4"
}

story_of_the_removed_route() {
  chapter "4. A route less, and what the switch says about it"
  local before after
  before=$(dropped node1 no_route)
  podwire_shown node1 route del "${CIDR4[node2]}"
  silent pod1a "${POD4[pod2a]}" "without the route nothing passes over IPv4"
  answers pod1a "${POD6[pod2a]}" "IPv6, whose route still stands, goes on"
  trace_says node1 pod1a "${POD4[pod2a]}" drop:no_route "trace names the reason"
  podwire_shown node1 drops
  after=$(dropped node1 no_route)
  claim "drops counts them: no_route went from ${before:-?} to ${after:-?}" test "${after:-0}" -gt "${before:-0}"
  podwire_shown node1 route add "${CIDR4[node2]}" via node2
  answers pod1a "${POD4[pod2a]}" "with the route it passes again"
}

story_of_the_counters() {
  chapter "5. Counters"
  podwire_shown node1 status
  podwire_shown node1 port list
  podwire_shown node1 stats
  local frames
  frames=$(forwarded node1) || true
  claim "node1 forwarded ${frames:-no} frames, all counted" test "${frames:-0}" -gt 0
}

# Runs the plugin as a container runtime does, for the network namespace `container`; ADD's result comes with what follows.
cni() { # COMMAND
  local conf=$FOLDER/net.d/10-podwire.conflist result=$FOLDER/result.json
  [[ -e $result ]] || echo null >"$result"
  jq --slurpfile result "$result" '{cniVersion, name, prevResult: $result[0]} + .plugins[0]' "$conf" | inside node1 env CNI_COMMAND="$1" CNI_CONTAINERID="$ID" \
    CNI_NETNS="/run/netns/$(netns container)" CNI_IFNAME=eth0 CNI_PATH="$FOLDER/bin" \
    CNI_ARGS="K8S_POD_NAMESPACE=default;K8S_POD_NAME=web" "$FOLDER/bin/podwire-cni"
}

leases() { json node1 ipam list | jq "map(select(.pod == \"default/web\")) | length"; }
has_leases() { [[ $(leases) == "$1" ]]; } # NUMBER

story_of_a_container() {
  chapter "6. A container, by CNI"
  prompt node1 podwired install-cni
  inside node1 "$BIN/podwired" --config "$FOLDER/node1.toml" install-cni --bin-dir "$FOLDER/bin" \
    --conf-dir "$FOLDER/net.d" 2>&1 | indented
  ip netns add "$(netns container)"
  prompt node1 "podwire-cni   (ADD, as a container runtime asks for it)"
  cni ADD >"$FOLDER/added.json"
  mv "$FOLDER/added.json" "$FOLDER/result.json"
  jq -c '.ips[]' "$FOLDER/result.json" | indented
  claim "a container is given an address of each family" has_leases 2
  claim "CHECK finds it as it was made" cni CHECK
  answers container "${POD4[pod1a]}" "it reaches pod1a over IPv4"
  answers container "${POD6[pod2a]}" "it reaches pod2a on node2 over IPv6"
  answers container "${UNDERLAY4[node2]}" "it reaches node2's own address, which sees node1's"
  podwire_shown node1 attachment list
  claim "DEL takes it away" cni DEL
  claim "its addresses are free again" has_leases 0
}

run_story() {
  local node pod
  chapter "Two nodes on a cable, a switch on each"
  make_namespaces
  for node in "${NODES[@]}"; do
    write_config "$node"
    start_daemon "$node"
  done
  for pod in "${PODS[@]}"; do add_pod "$pod"; done
  story_of_one_node
  story_of_the_route
  story_of_two_nodes
  story_of_the_removed_route
  story_of_the_counters
  story_of_a_container
}

# ---- taking down -------------------------------------------------------------------------------------------------
# Ends a process by its recorded pid, if that is still the one that was started: it names this demo's folder or port.
end_process() { # PIDFILE WORD
  local pid deadline=$((SECONDS + STOP_SECONDS_MAX))
  [[ -f $1 ]] || return 0
  pid=$(<"$1")
  tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$2" || return 0
  kill "$pid" 2>/dev/null || return 0
  while [[ -d /proc/$pid ]] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do
    if ((SECONDS >= deadline)); then
      kill -KILL "$pid" 2>/dev/null || true
      break
    fi
    sleep 0.05
  done
}

take_down() {
  local node place
  end_process "$FOLDER/iperf3.pid" "iperf3 -s"
  for node in "${NODES[@]}"; do end_process "$FOLDER/$node.pid" "$FOLDER/$node.toml"; done
  for place in "${NODES[@]}" "${PODS[@]}" container; do
    if [[ -e /run/netns/$(netns "$place") ]]; then ip netns del "$(netns "$place")" || true; fi
  done
  rm -rf "$FOLDER"
}

nothing_is_left() {
  local process
  [[ ! -e $FOLDER ]] || return 1
  if ip netns list | grep -q "^$ID-"; then return 1; fi
  for process in /proc/[0-9]*; do
    if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF "$FOLDER/"; then return 1; fi
  done
}

look_around() {
  cat <<LOOK

The demo is left running. To look around (in this shell):
  node1() { $BIN/podwire --socket $(socket node1) "\$@"; }
  node2() { $BIN/podwire --socket $(socket node2) "\$@"; }
  node1 status; node1 port list; node1 route list; node1 stats --watch; node1 events
  node1 trace --in pod1a --dst ${POD4[pod2a]} --proto tcp --dport 80
  ip netns exec $(netns pod1a) ping ${POD4[pod2a]}
  ip netns exec $(netns node1) tcpdump -ni eth0 udp port $VXLAN_PORT
Logs and configuration: $FOLDER
To take it down:
  $ROOT/tests/demo.sh down $ID
LOOK
}

summary() {
  chapter "Summary"
  if ((${#FIGURES[@]})); then printf '  %s\n' "${FIGURES[@]}"; fi
  printf '  %d claims are true, %d are not\n' "$PASSED" "${#FAILED[@]}"
  if ((${#FAILED[@]})); then printf '  FAIL  %s\n' "${FAILED[@]}"; fi
}

show_logs() {
  local node
  for node in "${NODES[@]}"; do
    [[ -f $FOLDER/$node.log ]] || continue
    printf '\n-- last lines of podwired on %s\n' "$node"
    tail -n 40 "$FOLDER/$node.log" | indented
  done
}

at_exit() {
  local status=$?
  trap - EXIT
  if ((status != 0)); then show_logs; fi
  if [[ -n $KEEP ]]; then look_around; else take_down; fi
  exit "$status"
}

main() {
  check_machine
  name_demo "pwd$$"
  mkdir -m 0700 "$FOLDER"
  trap at_exit EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  draw
  run_story
  if [[ -z $KEEP ]] && ((${#FAILED[@]} == 0)); then
    take_down
    claim "nothing is left behind: no namespace, no process, no file" nothing_is_left
  fi
  summary
  ((${#FAILED[@]} == 0))
}

case "${1:-run}" in
  run) main ;;
  down)
    [[ -n ${2:-} ]] || die "usage: tests/demo.sh down ID"
    [[ $2 =~ ^pwd[0-9]+$ ]] || die "$2 is no demo's ID; it looks like pwd1234"
    name_demo "$2"
    take_down
    ;;
  *) die "usage: [KEEP=1] tests/demo.sh [run | down ID]" ;;
esac

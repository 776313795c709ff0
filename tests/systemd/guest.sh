#!/usr/bin/env bash
# What tests/systemd.sh claims, inside its container: one line for each claim, and failure if one is not true.
# The node has its uplink eth0 and, behind it, a host that knows no way to pods; a and b are pods.
set -uo pipefail

DEB=/given/podwire.deb
CONFIG=/etc/podwire/podwired.toml
CONFLIST=/etc/cni/net.d/10-podwire.conflist
PLUGIN=/opt/cni/bin/podwire-cni
STORE=/var/lib/podwire
UNIT=podwired.service
DROPIN=/run/systemd/system/$UNIT.d/test.conf
NODE=192.0.2.1 OUTSIDE=192.0.2.2
CLUSTER=10.244.0.0/16 PODS=10.244.1.0/24
# CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN.
CAPABILITIES=0000000000203000
WATCHDOG_SECONDS=2
WORK=$(mktemp -d)
FAILED=()
export DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER=

# ---- telling -----------------------------------------------------------------------------------------------------
chapter() { printf '\n== %s\n' "$*"; }
claim() { # SENTENCE COMMAND...: what the command says, if it is one line, ends the sentence
  local said
  if said=$("${@:2}" 2>&1); then
    [[ -n $said && $said != *$'\n'* ]] && said=" ($said)" || said=
    printf '  PASS  %s%s\n' "$1" "$said"
  else
    FAILED+=("$1")
    printf '  FAIL  %s\n%s\n' "$1" "$said"
  fi
}
not() { ! "$@" >/dev/null 2>&1; }
within() { # SECONDS COMMAND...
  local until=$((SECONDS + $1))
  until "${@:2}"; do
    ((SECONDS < until)) || return 1
    sleep 0.1
  done
}

# ---- the unit ----------------------------------------------------------------------------------------------------
property() { systemctl show --value -p "$1" $UNIT; }
is() { # PROPERTY PATTERN
  [[ $(property "$1") == $2 ]] || { echo "$1 is $(property "$1")" && false; }
}
journal_has() { grep -qF "$1" <(journalctl -o cat -u $UNIT); }
fails_to_start() { ! systemctl start $UNIT && within 5 is ActiveState failed >/dev/null && is ExecMainStatus 78 && is NRestarts 0; }
has_been_tried() { (($(property NRestarts) >= $1)) || { echo "tried $(property NRestarts) times" && false; }; } # TIMES
is_confined() {
  local status root
  status=$(cat "/proc/$(property MainPID)/status")
  root=/proc/$(property MainPID)/root
  grep -P "^CapBnd:\t$CAPABILITIES$" <<<"$status" && grep -P '^NoNewPrivs:\t1$' <<<"$status" &&
    grep -P '^Seccomp:\t2$' <<<"$status" && not touch "$root/usr/written" && touch "$root/$STORE/written" && rm "$STORE/written"
}
# In the unit's cgroup, whose program decides.
opens_only_its_device() {
  local said
  mknod /var/tmp/fuse c 10 229
  said=$(
    exec 2>&1
    echo $BASHPID >/sys/fs/cgroup/system.slice/$UNIT/cgroup.procs
    : </dev/zero && : <>/dev/net/tun && : <>/var/tmp/fuse
  )
  grep -o 'fuse: Operation not permitted' <<<"$said"
}
exposure() { systemd-analyze security --threshold=49 $UNIT | sed -n '$s/.*: //p'; }
installs_cni() { podwired install-cni && [[ -x $PLUGIN ]] && jq -e '.plugins[0].type == "podwire-cni"' $CONFLIST; }
reloads() { # CLUSTER_CIDR POD_CIDR WORDS
  configure "$1" "$2" && systemctl reload $UNIT && within 5 journal_has "$3"
}
with_dropin() { # SETTING
  mkdir -p "${DROPIN%/*}"
  printf '[Service]\n%s\n' "$1" >$DROPIN
  systemctl daemon-reload && systemctl restart $UNIT
}
without_dropin() { rm -r "${DROPIN%/*}" && systemctl daemon-reload && systemctl restart $UNIT; }
is_another_than() { # PID
  systemctl is-active --quiet $UNIT && [[ $(property MainPID) != "$1" ]]
}
ends_and_comes_back() { # SIGNAL SECONDS
  local pid
  pid=$(property MainPID)
  kill "-$1" "$pid" && within "$2" is_another_than "$pid"
}

processes() { grep -sx podwired /proc/[0-9]*/comm; }
stops() { systemctl stop $UNIT && not processes && not ls /run/podwire/podwired.sock; }
starts() { systemctl enable --now --quiet $UNIT && pods_reach_each_other; }
upgrades() {
  dpkg-deb -R $DEB "$WORK/deb" && sed -i 's/^Version: .*/&.1/' "$WORK/deb/DEBIAN/control" &&
    dpkg-deb -Znone -b "$WORK/deb" "$WORK/upgrade.deb" && chmod 755 "$WORK" && apt-get -qq install --yes "$WORK/upgrade.deb"
}

# ---- the node and its pods ---------------------------------------------------------------------------------------
wire_node() {
  ip netns add outside &&
    ip link add eth0 type veth peer name eth0 netns outside &&
    ip address add "$NODE/24" dev eth0 && ip link set eth0 up &&
    ip -n outside address add "$OUTSIDE/24" dev eth0 && ip -n outside link set eth0 up
}
configure() { # CLUSTER_CIDR POD_CIDR
  cat >$CONFIG <<TOML
[node]
name = "node1"
cluster_cidrs = ["$1", "fd00:244::/32"]
pod_cidrs = ["$2", "fd00:244:1::/64"]
[uplink]
address = "$NODE"
TOML
}
cni() { # COMMAND POD [RUNTIME_CONFIG]
  jq --argjson wishes "${3:-null}" '{cniVersion, name, runtimeConfig: $wishes} + .plugins[0]' $CONFLIST |
    CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_NETNS=/run/netns/$2 CNI_IFNAME=eth0 CNI_PATH=${PLUGIN%/*} $PLUGIN
}
attaches() { # POD [RUNTIME_CONFIG]
  ip netns add "$1" && cni ADD "$@" >"$WORK/$1" && jq -er '[.ips[].address] | join(", ")' "$WORK/$1" || { cat "$WORK/$1" && false; }
}
detaches() { # POD
  cni DEL "$1" && not ip -n "$1" link show eth0 && ip netns del "$1"
}
address() { # POD [FAMILY]: 4, or 6
  jq -r --argjson family "${2:-4}" '.ips[$family / 2 - 2].address | split("/")[0]' "$WORK/$1"
}
reaches() { # ADDRESS
  ping -q -c 3 -i 0.2 -W 2 "$1" >"$WORK/reaches" && grep -q ' 0% packet loss' "$WORK/reaches"
}
pod_reaches() { # POD ADDRESS
  ip netns exec "$1" ping -q -c 3 -i 0.2 -W 2 "$2" >"$WORK/reaches" && grep -q ' 0% packet loss' "$WORK/reaches"
}
pods_reach_each_other() { pod_reaches a "$(address b)" && pod_reaches a "$(address b 6)"; }
host_port_leads_into_b() {
  ip netns exec b busybox nc -l -p 80 -e /bin/echo hello >/dev/null 2>&1 &
  sleep 0.5
  [[ $(ip netns exec outside timeout 3 bash -c "cat </dev/tcp/$NODE/8080") == hello ]]
}

# Numbers from pod a to pod b over one connection, for as long as the pods live.
start_stream() {
  ip netns exec b busybox nc -l -p 7000 >"$WORK/stream" &
  sleep 0.5
  ip netns exec a bash -c 'exec 3<>"/dev/tcp/$0/7000"; for ((i = 1; ; i++)); do echo $i >&3; sleep 0.02; done' "$(address b)" &
  STREAM=$!
}
stream_goes_on() {
  local before lines
  before=$(wc -l <"$WORK/stream")
  sleep 1
  lines=$(wc -l <"$WORK/stream")
  ((lines > before)) && cmp <(head -n "$lines" "$WORK/stream") <(seq "$lines") && echo "$lines numbers"
}
answers() { grep -c 'icmp_seq=' "$WORK/pings"; }
# From a to b, one each 10 ms, until after the command; the last may still be under way.
no_ping_is_lost_over() { # COMMAND...
  ip netns exec a ping -i 0.01 "$(address b)" >"$WORK/pings" &
  local ping=$! done=0 by_then answers last
  sleep 0.5
  "$@" >/dev/null 2>"$WORK/words" || { done=$? && cat "$WORK/words"; }
  by_then=$(answers)
  sleep 1
  kill -INT $ping && wait $ping
  answers=$(answers)
  last=$(sed -n 's/.*icmp_seq=\([0-9]*\).*/\1/p' "$WORK/pings" | tail -n 1)
  echo "$answers of $last answered"
  ((done == 0 && answers == last && answers > by_then))
}

# ---- what is left ------------------------------------------------------------------------------------------------
nothing_in_force() {
  local left
  left=$(
    exec 2>/dev/null
    ip -o link show podwire0
    ip route | grep podwire
    ip -n a -o link show eth0
    nft list tables | grep podwire
    ls $CONFLIST $PLUGIN /run/podwire/podwired.sock
    processes
  )
  [[ -z $left ]] || { echo "$left" && false; }
}
nothing_on_disk() {
  local left
  left=$(find / /tmp /run -xdev -name '*podwire*' -not -path "$WORK/*")
  [[ -z $left ]] || { echo "$left" && false; }
}

chapter "the package"
claim "what it depends on is not there yet" not command -v nft
claim "apt installs it, with what it depends on" apt-get -qq install --yes $DEB
claim "nothing is started" is ActiveState inactive
claim "nothing is enabled" is UnitFileState disabled
claim "systemd-analyze finds no fault in the unit" systemd-analyze verify $UNIT
claim "systemd-analyze finds its sandbox OK" exposure

chapter "a configuration that is refused"
claim "podwired is tried once" fails_to_start
claim "the journal says why" journal_has "node.name: it is missing"
claim "systemctl status says why" is StatusText "*node.name: it is missing*"

chapter "the unit"
configure $CLUSTER $PODS
systemctl reset-failed $UNIT
claim "it is enabled" systemctl enable --now --no-block --quiet $UNIT
claim "it is tried again while the uplink's address is missing" within 30 has_been_tried 8
claim "systemctl status says why" within 5 is StatusText "*$NODE*"
wire_node
claim "it starts once the address is there" within 5 is ActiveState active
claim "podwired has said that it is ready" is StatusText "0 ports, 0 closed, 0 remote VTEPs"
claim "systemd watches it" is WatchdogUSec 30s
claim "podwired is confined" is_confined
claim "podwired opens no device but its own" opens_only_its_device

chapter "pods"
claim "podwired install-cni puts plugin and configuration in place" installs_cni
claim "pod a is attached" attaches a
claim "pod b is attached, with a host port" attaches b '{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'
claim "systemctl status counts them" within 5 is StatusText "2 ports, *"
claim "pods reach each other" pods_reach_each_other
claim "the node reaches a pod" reaches "$(address a)"
claim "a pod reaches what is outside, masqueraded" pod_reaches a $OUTSIDE
claim "the host port leads into the pod" host_port_leads_into_b

chapter "reload"
pid=$(property MainPID)
claim "a key that can change is taken over" reloads 10.240.0.0/12 $PODS "reloaded: node.cluster_cidrs"
claim "the node's route has changed" test -n "$(ip route show 10.240.0.0/12 dev podwire0)"
claim "what is refused is in the journal" reloads 10.240.0.0/12 10.244.7.0/24 "not reloaded: node.pod_cidrs can not change"
claim "podwired went on" is MainPID "$pid"
claim "the old configuration is taken back" reloads $CLUSTER $PODS "reloaded: node.cluster_cidrs"
claim "the node's route is the old one" test -n "$(ip route show $CLUSTER dev podwire0)"

chapter "restart, with the pods' TAPs kept by systemd"
start_stream
claim "systemd keeps the TAPs" is NFileDescriptorStore "[2-9]"
claim "no ping is lost over systemctl restart" no_ping_is_lost_over systemctl restart $UNIT
claim "no ping is lost over kill -9" no_ping_is_lost_over ends_and_comes_back KILL 10
claim "it was systemd that started podwired again" is NRestarts 1
claim "the connection between the pods goes on" stream_goes_on

chapter "a podwired that hangs"
with_dropin "WatchdogSec=$WATCHDOG_SECONDS"
claim "systemd ends it and starts another" ends_and_comes_back STOP $((WATCHDOG_SECONDS * 5))
claim "the journal says why" journal_has "Watchdog timeout"
claim "pods reach each other" pods_reach_each_other
without_dropin
claim "the connection between the pods goes on" stream_goes_on

chapter "stop"
claim "systemctl stop leaves nothing that runs" stops
claim "systemd lets go of the TAPs" is NFileDescriptorStore 0
claim "pods keep their interfaces" ip -n a link show eth0
claim "systemctl start has pods reach each other again" starts
claim "the connection between the pods goes on" stream_goes_on

chapter "upgrade of the package"
pid=$(property MainPID)
claim "no ping is lost over it" no_ping_is_lost_over upgrades
claim "the new podwired runs" is_another_than "$pid"
claim "it stays enabled" is UnitFileState enabled
claim "the configuration stays" grep -F "cluster_cidrs = [\"$CLUSTER\"" $CONFIG
claim "the connection between the pods goes on" stream_goes_on
kill $STREAM

chapter "the package is removed, and comes back"
claim "apt remove works while pods are attached" apt-get -qq remove --yes podwire
claim "no interface, route, rule, plugin or process is left" nothing_in_force
claim "the store and the configuration stay" ls $STORE/podwired.redb $CONFIG
claim "apt installs it again" apt-get -qq install --yes $DEB
claim "it is enabled as before" is UnitFileState enabled
claim "systemctl start has pods reach each other again" starts

chapter "the package is purged"
claim "apt purge works while pods are attached" apt-get -qq purge --yes podwire
claim "no interface, route, rule, plugin or process is left" nothing_in_force
claim "no file is left" nothing_on_disk

chapter "make install, and the way out by hand"
ip netns del a && ip netns del b
cp -r /given/installed/. /
configure $CLUSTER $PODS
systemctl daemon-reload
claim "the unit starts" systemctl enable --now --quiet $UNIT
claim "systemd-analyze finds no fault in the unit" systemd-analyze verify $UNIT
claim "podwired install-cni puts plugin and configuration in place" installs_cni
claim "pod a is attached" attaches a
claim "pod b is attached" attaches b
claim "pods reach each other" pods_reach_each_other
claim "pod b is detached" detaches b
claim "podwired uninstall-cni takes plugin and configuration away" podwired uninstall-cni
claim "podwired is disabled" systemctl disable --now --quiet $UNIT
claim "podwired cleanup takes the rest" podwired cleanup
claim "no interface, route, rule, plugin or process is left" nothing_in_force
claim "no store is left" not ls $STORE/*

echo
if ((${#FAILED[@]})); then
  printf '%d not true:\n' "${#FAILED[@]}"
  printf '  %s\n' "${FAILED[@]}"
  journalctl -o cat -u $UNIT | tail -n 60
  exit 1
fi
echo "all of it is true"

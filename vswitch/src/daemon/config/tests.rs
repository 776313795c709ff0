//! Each fault is told with its line and remedy, defaults are what they say, and the documentation is complete.

use super::*;

const DOCUMENTATION: &str = include_str!("../../../../docs/configuration.md");

const CONTRACT: &str = r#"[node]
name = "node1"
pod_cidrs = ["10.244.1.0/24", "fd00:244:1::/64"]   # gateway: the first address of each
cluster_cidrs = ["10.244.0.0/16", "fd00:244::/32"] # optional: what the node routes through the switch
[host]
interface = "podwire0"
[uplink]
kind = "udp"              # udp | xdp
address = "172.31.0.1"    # our VTEP address, or a list with one a family
# device = "eth0"         # for xdp
# mtu = "auto"
[vxlan]
vni = 1
port = 4789
[workers]
cpus = "0-1"              # default: one worker, unpinned if it may not pin
poll = "adaptive"
[control]
socket = "/run/podwire/podwired.sock"
state_dir = "/var/lib/podwire"
"#;

const SMALLEST: &str = "[node]\nname = \"n\"\npod_cidrs = [\"10.244.1.0/24\"]\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("p.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn the_contracts_file_is_understood() {
    let config = parse(CONTRACT).unwrap();
    assert_eq!(config.node.name.as_str(), "node1");
    assert_eq!(
        config.gateways().map(|gateway| gateway.to_string()).collect::<Vec<_>>(),
        ["10.244.1.1", "fd00:244:1::1"]
    );
    assert_eq!(config.node.cluster_cidrs.len(), 2);
    let uplink = config.uplink.unwrap();
    assert_eq!(uplink.addresses().collect::<Vec<_>>(), ["172.31.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!((uplink.kind, uplink.mtu, uplink.hold_us), (UplinkKind::Udp, UplinkMtu::Auto, 20));
    assert_eq!((config.vxlan.vni.get(), config.vxlan.port, config.vxlan.dscp_copy), (1, 4789, false));
    assert_eq!(config.workers.cpus.unwrap().cpus, [0, 1]);
}

#[test]
fn all_but_the_node_has_defaults() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!((config.uplink, config.workers.cpus, config.workers.poll), (None, None, Poll::Adaptive));
    assert_eq!((config.host.interface.as_str(), config.vxlan.port), ("podwire0", 4789));
    assert_eq!(config.control.socket, Path::new("/run/podwire/podwired.sock"));
    assert_eq!(config.control.state_dir, Path::new("/var/lib/podwire"));
    assert_eq!((config.ipam.ranges, config.ipam.reserved), (Vec::new(), Vec::new()));
    assert!(config.vxlan.outer_checksum);
    assert!(config.node.netns_dirs.contains(&PathBuf::from("/run/netns")), "{:?}", config.node.netns_dirs);
}

#[test]
fn offloads_are_on_unless_switched_off_with_what_rests_on_them() {
    let of = |lines: &str| parse(&format!("{SMALLEST}[offloads]\n{lines}\n")).unwrap().offloads;
    let all = Offloads { checksum: true, tso: true, uso: true, udp_segment: true, udp_gro: true };
    assert_eq!((parse(SMALLEST).unwrap().offloads, of("uso = true")), (all, all));
    assert_eq!(of("tso = false"), Offloads { tso: false, uso: false, ..all });
    assert_eq!(of("checksum = false"), Offloads { checksum: false, tso: false, uso: false, ..all });
    let uplink = "udp_segment = false\nudp_gro = false";
    assert_eq!(of(uplink), Offloads { udp_segment: false, udp_gro: false, ..all });
}

#[test]
fn an_xdp_uplink_takes_the_best_mode_unless_one_is_named() {
    let of = |more: &str| {
        let text = format!("{SMALLEST}\n[uplink]\nkind = \"xdp\"\naddress = \"172.31.0.1\"\ndevice = \"eth0\"\n{more}");
        parse(&text).unwrap().uplink.unwrap().kind
    };
    let device = "eth0".to_owned();
    let best = UplinkKind::Xdp(XdpUplink { device: device.clone(), mode: None, tx: UplinkTx::Auto, busy_poll: false });
    assert_eq!(of(""), best);
    assert_eq!(of("mode = \"auto\"\ntx = \"auto\""), best);
    let named =
        UplinkKind::Xdp(XdpUplink { device, mode: Some(XdpMode::Generic), tx: UplinkTx::Udp, busy_poll: false });
    assert_eq!(of("mode = \"generic\"\ntx = \"udp\""), named);
    let forced =
        UplinkKind::Xdp(XdpUplink { device: "eth0".to_owned(), mode: None, tx: UplinkTx::Xdp, busy_poll: true });
    assert_eq!(of("tx = \"xdp\"\nbusy_poll = true"), forced);
}

#[test]
fn a_wrong_value_is_refused_with_line_key_and_remedy() {
    // (section, lines in it that are put after the smallest file's [node], or after a section of their own)
    let cases = [
        ("node", "cluster_cidr = []", "p.toml: line 4: node.cluster_cidr: no such key; the keys of [node] are name,"),
        (
            "node",
            "cluster_cidrs = [\"10.245.0.0/16\"]",
            "no IPv4 subnet here contains the node's own pods, 10.244.1.0/24",
        ),
        ("node", "cluster_cidrs = [\"fd00::/16\"]", "fd00::/16 is IPv6, but the node has no IPv6 pod subnet"),
        ("node", "cluster_cidrs = [\"10.244.1.5/16\"]", "10.244.1.5/16 has host bits set; write \"10.244.0.0/16\""),
        ("node", "netns_dirs = []", "node.netns_dirs: the list is empty; name at least one directory"),
        ("node", "netns_dirs = [\"netns\"]", "\"netns\" is not an absolute path; begin with '/'"),
        ("node", "cluster_cidrs = \"10.244.0.0/16\"", "line 4: node.cluster_cidrs: invalid type"),
        (
            "nodes",
            "a = 1",
            "p.toml: line 4: nodes: no such section; the sections are [node], [host], [uplink], [ipam], [vxlan]",
        ),
        ("host", "interface = \"sixteen-bytes-xx\"", "can not be an interface's name; use 1 to 15"),
        ("host", "interface = \"a/b\"", "host.interface: \"a/b\" can not be"),
        ("uplink", "kind = \"udp\"", "line 4: uplink.address: it is missing; add it: address = "),
        (
            "uplink",
            "kind = \"xdp\"\naddress = \"172.31.0.1\"",
            "uplink.device: it is missing; add it: device = \"eth0\", the NIC",
        ),
        (
            "uplink",
            "kind = \"xdp\"\naddress = \"172.31.0.1\"\ndevice = \"eth0\"\nmode = \"fast\"",
            "line 8: uplink.mode: \"fast\" is no mode; write \"auto\", \"zerocopy\", \"native\" or \"generic\"",
        ),
        (
            "uplink",
            "kind = \"xdp\"\naddress = \"172.31.0.1\"\ndevice = \"eth0\"\ntx = \"both\"",
            "uplink.tx: \"both\" is no way to send; write \"auto\", \"udp\" or \"xdp\"",
        ),
        ("uplink", "address = \"172.31.0.1\"\nmode = \"native\"", "uplink.mode: it is for uplink.kind = \"xdp\" only"),
        ("uplink", "address = \"172.31.0.1\"\ntx = \"xdp\"", "uplink.tx: it is for uplink.kind = \"xdp\" only"),
        (
            "uplink",
            "address = \"172.31.0.1\"\nbusy_poll = true",
            "uplink.busy_poll: it is for uplink.kind = \"xdp\" only",
        ),
        (
            "uplink",
            "kind = \"tcp\"\naddress = \"172.31.0.1\"",
            "uplink.kind: \"tcp\" is no kind of uplink; use \"udp\" or \"xdp\"",
        ),
        (
            "uplink",
            "address = \"172.31.0.1\"\nhold_us = 1001",
            "uplink.hold_us: 1001 is out of range; write a number of microseconds from 0, which is off, to 1000",
        ),
        ("uplink", "address = \"224.0.0.1\"", "224.0.0.1 is no address other nodes can reach"),
        ("uplink", "address = \"0.0.0.0\"", "0.0.0.0 is no address other nodes can reach"),
        ("uplink", "address = \"node1\"", "uplink.address: \"node1\": "),
        ("uplink", "address = 1", "line 5: uplink.address: this is neither text nor a list of text; write this node's"),
        ("uplink", "address = []", "the list is empty"),
        ("uplink", "address = [\"172.31.0.1\", \"172.31.0.2\"]", "172.31.0.2 is a second address of its family"),
        ("uplink", "address = \"10.244.1.7\"", "10.244.1.7 lies inside the pods' 10.244.1.0/24"),
        (
            "uplink",
            "address = \"172.31.0.1\"\nmtu = 625",
            "line 6: uplink.mtu: 625 is out of range; write \"auto\", or a",
        ),
        ("uplink", "address = \"172.31.0.1\"\nmtu = 65536", "uplink.mtu: 65536 is out of range"),
        ("uplink", "address = \"172.31.0.1\"\nmtu = \"big\"", "uplink.mtu: \"big\" is no MTU"),
        ("uplink", "address = \"172.31.0.1\"\ndevice = \"\"", "uplink.device: \"\" can not be an interface's name"),
        (
            "ipam",
            "ranges = [\"10.244.1.200-10.244.1.16\"]",
            "line 5: ipam.ranges: \"10.244.1.200-10.244.1.16\" is not a range of addresses; write FIRST-LAST",
        ),
        (
            "ipam",
            "ranges = [\"10.244.1.16-10.244.2.9\"]",
            "ipam.ranges: 10.244.1.16-10.244.2.9 is not inside one of the node's pod CIDRs (10.244.1.0/24); name",
        ),
        (
            "ipam",
            "ranges = [\"10.244.1.16-10.244.1.20\", \"10.244.1.20\"]",
            "ipam.ranges: 10.244.1.20 overlaps the file's 10.244.1.16-10.244.1.20; name addresses that are in no",
        ),
        ("ipam", "reserved = \"10.244.1.5\"", "ipam.reserved: invalid type"),
        ("ipam", "reserved = [\"10.244.9.5\"]", "ipam.reserved: 10.244.9.5 is not inside one of the node's pod CIDRs"),
        ("vxlan", "vni = 16777216", "vxlan.vni: 16777216 is no VXLAN network identifier"),
        ("vxlan", "vni = -1", "vxlan.vni: -1 is no"),
        ("vxlan", "port = 0", "vxlan.port: 0 is no UDP port"),
        (
            "vxlan",
            "dscp_copy = 1",
            "vxlan.dscp_copy: invalid type: integer `1`, expected a boolean; write true or false",
        ),
        (
            "vxlan",
            "outer_checksum = \"zero\"",
            "vxlan.outer_checksum: invalid type: string \"zero\", expected a boolean; write true or false",
        ),
        ("offloads", "checksum = \"on\"", "offloads.checksum: invalid type: string \"on\", expected a boolean"),
        (
            "offloads",
            "checksum = false\ntso = true",
            "line 6: offloads.tso: the kernel does not have it without offloads.checksum, which is off; set offloads.checksum",
        ),
        ("offloads", "tso = false\nuso = true", "offloads.uso: the kernel does not have it without offloads.tso"),
        ("workers", "cpus = \"\"", "workers.cpus: \"\": \"\" is no CPU"),
        ("workers", "cpus = \"3-1\"", "the range \"3-1\" runs backwards"),
        ("workers", "cpus = \"0,0-1\"", "CPU 0 is named twice"),
        ("workers", "cpus = \"0-1024\"", "\"1024\" is no CPU from 0 to 1023"),
        ("workers", "cpus = \"0-64\"", "that is 65 workers, more than 64"),
        ("workers", "flow_cache = 4194305", "4194305 flows are too many"),
        ("workers", "flow_cache = -1", "workers.flow_cache"),
        ("uplink", "address = \"172.31.0.1\"\nhold_us = -1", "uplink.hold_us: "),
        ("workers", "poll = \"lazy\"", "workers.poll: unknown variant `lazy`"),
        ("control", "socket = \"podwired.sock\"", "control.socket: \"podwired.sock\" is not an absolute path"),
        ("control", "state_dir = \"lib\"", "control.state_dir: \"lib\" is not an absolute path"),
    ];
    for (section, lines, expected) in cases {
        let header = if section == "node" { String::new() } else { format!("[{section}]\n") };
        let error = parse(&format!("{SMALLEST}{header}{lines}\n")).unwrap_err();
        assert!(error.contains(expected) && error.lines().count() == 1, "{lines}: {error}");
    }
    let long = format!("{SMALLEST}[control]\nsocket = \"/{}\"\n", "s".repeat(107));
    assert!(parse(&long).unwrap_err().contains("a path of 108 bytes is too long for a Unix socket"));
}

#[test]
fn ranges_of_addresses_keep_their_order() {
    let lines =
        "ranges = [\"10.244.1.100-10.244.1.200\", \"10.244.1.16\"]\nreserved = [\"10.244.1.5\", \"10.244.1.5\"]";
    let ipam = parse(&format!("{SMALLEST}[ipam]\n{lines}\n")).unwrap().ipam;
    let shown = |ranges: &[IpRange]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&ipam.ranges), ["10.244.1.100-10.244.1.200", "10.244.1.16"]);
    assert_eq!(shown(&ipam.reserved), ["10.244.1.5", "10.244.1.5"]);
}

#[test]
fn a_wrong_pod_subnet_is_refused() {
    let cases = [
        ("[]", "the list is empty"),
        ("[\"10.244.1.7/24\"]", "node.pod_cidrs: 10.244.1.7/24 has host bits set; write \"10.244.1.0/24\""),
        ("[\"10.244.1.0/24\", \"10.244.2.0/24\"]", "10.244.2.0/24 is a second subnet of its family"),
        ("[\"10.244.1.0/31\"]", "use a prefix length from /8 to /30"),
        ("[\"fd00::/127\"]", "use a prefix length from /32 to /126"),
        ("[\"224.0.0.0/24\"]", "224.0.0.0/24 is no unicast subnet"),
        ("[\"10.244.1.0\"]", "\"10.244.1.0\": "),
    ];
    for (cidrs, expected) in cases {
        let error = parse(&format!("[node]\nname = \"n\"\npod_cidrs = {cidrs}\n")).unwrap_err();
        assert!(error.contains(expected) && error.contains("line 3") && error.lines().count() == 1, "{cidrs}: {error}");
    }
}

#[test]
fn ipv6_pods_are_left_with_the_mtu_they_need() {
    let with = |address: &str, mtu: u16| {
        parse(&format!(
            "[node]\nname = \"n\"\npod_cidrs = [\"fd00:244:1::/64\"]\n[uplink]\naddress = {address}\nmtu = {mtu}\n"
        ))
    };
    assert!(with("\"172.31.0.1\"", 1330).is_ok() && with("[\"172.31.0.1\", \"fd00:31::1\"]", 1350).is_ok());
    assert!(with("\"172.31.0.1\"", 1329).unwrap_err().contains("write 1330 or more"));
    assert!(with("[\"172.31.0.1\", \"fd00:31::1\"]", 1349).unwrap_err().contains("write 1350 or more"));
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let error = parse("[node]\nname = \"-\"\n[vxlan]\nport = 0\nvmi = 1\n[workers]\npoll = 1\n").unwrap_err();
    let found: Vec<_> =
        error.lines().map(|line| line.split(": ").skip(1).take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected =
        ["line 1 node.pod_cidrs", "line 2 node.name", "line 4 vxlan.port", "line 5 vxlan.vmi", "line 7 workers.poll"];
    assert_eq!(found, expected, "{error}");
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    let error = parse("[node]\nname = \n").unwrap_err();
    assert!(error.starts_with("p.toml: line 2: this is no TOML: "), "{error}");
    assert!(parse("node = 1\n").unwrap_err().contains("this is a section, not a value; write it as [node]"));
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    let error = Config::load(Path::new("/nonexistent/podwired.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/podwired.toml") && error.contains("--config PATH"), "{error}");
}

#[test]
fn a_reload_takes_over_what_it_can_and_names_what_it_can_not() {
    let old = parse(CONTRACT).unwrap();
    let with = |from: &str, to: &str| parse(&CONTRACT.replace(from, to)).unwrap();
    assert_eq!(old.reload_from(old.clone()).unwrap().changed, [""; 0]);
    let plan = old.reload_from(with("adaptive", "busy")).unwrap();
    assert_eq!((plan.changed, plan.config.workers.poll), (vec!["workers.poll"], Poll::Busy));
    let plan = old.reload_from(with("# mtu = \"auto\"", "mtu = 1400")).unwrap();
    assert_eq!(plan.changed, ["uplink.mtu"]);
    assert_eq!(old.reload_from(with("10.244.0.0/16", "10.0.0.0/8")).unwrap().changed, ["node.cluster_cidrs"]);
    let ranges = old.reload_from(with("[vxlan]", "[ipam]\nranges = [\"10.244.1.9\"]\n[vxlan]")).unwrap();
    assert_eq!(ranges.changed, ["ipam.ranges"]);
    let both = parse(&CONTRACT.replace("adaptive", "busy").replace("4789", "8472")).unwrap();
    assert_eq!(old.reload_from(both), Err(vec!["vxlan.port"]));
    let none = parse(SMALLEST).unwrap().reload_from(old).unwrap_err();
    assert!(none.contains(&"uplink.kind") && none.contains(&"node.name"), "{none:?}");
}

#[test]
fn the_documentation_lists_every_key_with_its_reload_and_its_example_is_right() {
    let rows: Vec<_> = DOCUMENTATION.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), KEYS.len());
    for key in KEYS {
        let row = rows.iter().find(|row| row.starts_with(&format!("| `{}` |", key.name)));
        let row = row.unwrap_or_else(|| panic!("docs/configuration.md does not list {}", key.name));
        assert!(row.ends_with(if key.reloads { "| yes |" } else { "| no |" }), "{row}");
    }
    assert!(DOCUMENTATION.contains(DEFAULT_PATH));
    let example = DOCUMENTATION.split("```").nth(1).unwrap().strip_prefix("toml\n").unwrap();
    assert_eq!(parse(example), parse(CONTRACT));
}

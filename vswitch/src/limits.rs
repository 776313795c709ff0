//! Every fixed limit of the engine in one place, with its unit; `podwire show limits` prints [`ALL`].

/// Frames a batch holds: what one call of the pipeline decides.
pub const BATCH_FRAMES: usize = 64;
/// Largest IP packet, header included (RFC 791, 3.1).
pub const IP_BYTES_MAX: usize = 65_535;
/// Largest L2 frame a port may hand over: a 64 KiB IP packet behind an Ethernet header and one VLAN tag.
pub const FRAME_BYTES_MAX: usize = IP_BYTES_MAX + 14 + 4;
/// Bytes kept free in front of a received frame, for encapsulation and for ICMP errors built in place.
pub const FRAME_HEADROOM_BYTES: usize = 192;
/// Bytes of a buffer that go into aligning the frame in it.
pub const FRAME_ALIGNING_BYTES: usize = 128;
/// Bytes of one frame buffer. Not a multiple of the page, so that buffers do not share cache sets.
pub const FRAME_BUFFER_BYTES: usize = 17 * 4096 + FRAME_HEADROOM_BYTES + FRAME_ALIGNING_BYTES;
/// Ports one switch may have, tunnels included.
pub const PORTS_MAX: usize = 4096;
/// Bridges one switch may have.
pub const BRIDGES_MAX: usize = 256;
/// Remote VTEPs one switch may have.
pub const VTEPS_MAX: usize = 2048;
/// Routes one switch may have, over all owners and both families.
pub const ROUTES_MAX: usize = 200_000;
/// Addresses one pod port may have.
pub const PORT_ADDRESSES_MAX: usize = 16;
/// Learned and static MAC addresses of one bridge, unless the configuration says otherwise.
pub const MACS_PER_BRIDGE: usize = 16_384;
/// Seconds after which a learned MAC that was not seen again is forgotten.
pub const MAC_AGEING_SECONDS: u64 = 300;
/// Moves of learned MACs between ports that one bridge accepts a second; more are counted and ignored.
pub const MAC_MOVES_PER_SECOND: u64 = 100;
/// ICMP errors one worker originates a second.
pub const ICMP_ERRORS_PER_SECOND: u64 = 1_000;
/// Broadcast and multicast frames one port may send a second.
pub const FLOODS_PER_PORT_PER_SECOND: u64 = 20_000;
/// IPv6 extension headers that are walked before a frame is dropped.
pub const IPV6_EXTENSIONS_MAX: usize = 8;
/// VLAN tags that are walked before a frame is dropped (802.1ad outside 802.1Q).
pub const VLAN_TAGS_MAX: usize = 2;
/// Flows whose segments one receiving half joins at a time.
pub const RUNS_MAX: usize = 8;
/// Segments a burst brings from which on the next one is not waited for (`uplink.hold_us`).
pub const HOLD_SEGMENTS_MAX: u64 = 16;
/// Longest wait of that kind the configuration may ask for, in microseconds.
pub const HOLD_US_MAX: u32 = 1_000;
/// Segments or fragments one frame may be cut into.
pub const PIECES_MAX: usize = 1_024;
/// Flows each worker's cache keeps, unless the configuration says otherwise; 128 bytes each, and 16 for finding it.
pub const FLOWS_PER_WORKER: usize = 131_072;
/// Flows a worker's cache may be told to keep.
pub const FLOWS_PER_WORKER_MAX: usize = 4_194_304;
/// Workers one switch may run.
pub const WORKERS_MAX: usize = 64;
/// Largest MTU of a veth-xdp port, in bytes: the kernel's limit for XDP on a veth, where a frame lies in one page of 4096
/// bytes with 256 in front and a `skb_shared_info` behind, and a little less.
pub const VETH_XDP_MTU_MAX: u16 = 3_500;
/// Ranges of addresses for pods, over both families.
pub const IPAM_RANGES_MAX: usize = 64;
/// Addresses in a family's ranges from which on not every release is remembered.
pub const IPAM_EXACT_BELOW: usize = 1 << 20;
/// Releases of a family that are remembered then, the latest ones.
pub const IPAM_RELEASES_MAX: usize = 65_536;
/// Commands waiting for one worker.
pub const WORKER_COMMANDS_MAX: usize = 256;

/// Name, value and unit of each limit, for `podwire show limits`.
pub const ALL: &[(&str, u64, &str)] = &[
    ("batch_frames", BATCH_FRAMES as u64, "frames"),
    ("frame_bytes_max", FRAME_BYTES_MAX as u64, "bytes"),
    ("ports_max", PORTS_MAX as u64, "ports"),
    ("bridges_max", BRIDGES_MAX as u64, "bridges"),
    ("vteps_max", VTEPS_MAX as u64, "VTEPs"),
    ("routes_max", ROUTES_MAX as u64, "routes"),
    ("port_addresses_max", PORT_ADDRESSES_MAX as u64, "addresses"),
    ("macs_per_bridge", MACS_PER_BRIDGE as u64, "MACs"),
    ("mac_ageing", MAC_AGEING_SECONDS, "seconds"),
    ("mac_moves", MAC_MOVES_PER_SECOND, "moves a second a bridge"),
    ("icmp_errors", ICMP_ERRORS_PER_SECOND, "errors a second a worker"),
    ("floods_per_port", FLOODS_PER_PORT_PER_SECOND, "frames a second"),
    ("ipv6_extensions_max", IPV6_EXTENSIONS_MAX as u64, "headers"),
    ("vlan_tags_max", VLAN_TAGS_MAX as u64, "tags"),
    ("pieces_max", PIECES_MAX as u64, "segments a frame"),
    ("runs_max", RUNS_MAX as u64, "flows joined at a time"),
    ("hold_segments_max", HOLD_SEGMENTS_MAX, "segments of a burst that is held for more"),
    ("hold_max", HOLD_US_MAX as u64, "microseconds"),
    ("flows_per_worker", FLOWS_PER_WORKER as u64, "flows"),
    ("flows_per_worker_max", FLOWS_PER_WORKER_MAX as u64, "flows"),
    ("workers_max", WORKERS_MAX as u64, "workers"),
    ("veth_xdp_mtu_max", VETH_XDP_MTU_MAX as u64, "bytes"),
    ("ipam_ranges_max", IPAM_RANGES_MAX as u64, "ranges"),
    ("ipam_exact_below", IPAM_EXACT_BELOW as u64, "addresses"),
    ("ipam_releases_max", IPAM_RELEASES_MAX as u64, "releases a family"),
    ("worker_commands_max", WORKER_COMMANDS_MAX as u64, "commands"),
];

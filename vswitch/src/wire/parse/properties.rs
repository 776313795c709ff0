//! The parse against etherparse, an independent decoder, on frames that etherparse builds, and on mutations of them.

use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, LinkExtHeader, NetHeaders,
    PacketBuilder, PacketBuilderStep, PacketHeaders, SingleVlanHeader, TransportHeader, VlanHeader, VlanId,
};
use podwire_control::model::Mac;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::wire::{Arp, IcmpHeader, Ipv4, Ipv6, Plain, TcpHeader, UdpHeader, VlanTag};

/// What a frame is built from.
#[derive(Clone, Debug)]
struct Recipe {
    tags: Vec<u16>,
    ip: IpHeaders,
    transport: Transport,
    ports: (u16, u16),
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp { flags: u8, option_words: u8 },
    Udp,
    Icmp { kind: u8, code: u8 },
    Other(u8),
}

impl Recipe {
    fn bytes(&self) -> Vec<u8> {
        let start = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let tag = |vid: u16| SingleVlanHeader {
            pcp: etherparse::VlanPcp::try_new(u8::try_from(vid % 8).unwrap()).unwrap(),
            drop_eligible_indicator: vid % 2 == 1,
            vlan_id: VlanId::try_new(vid).unwrap(),
            ether_type: etherparse::EtherType(0),
        };
        let ip = self.ip.clone();
        let packet = match self.tags[..] {
            [] => start.ip(ip),
            [one] => start.vlan(VlanHeader::Single(tag(one))).ip(ip),
            [outer, inner, ..] => {
                let double = etherparse::DoubleVlanHeader { outer: tag(outer), inner: tag(inner) };
                start.vlan(VlanHeader::Double(double)).ip(ip)
            }
        };
        self.transport(packet)
    }

    fn transport(&self, packet: PacketBuilderStep<IpHeaders>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (src_port, dst_port) = self.ports;
        let is_v4 = matches!(self.ip, IpHeaders::Ipv4(..));
        match self.transport {
            Transport::Tcp { flags, option_words } => {
                let mut header = etherparse::TcpHeader::new(src_port, dst_port, 7, 8);
                let flag = |bit: u8| flags >> bit & 1 == 1;
                (header.fin, header.syn, header.rst, header.psh) = (flag(0), flag(1), flag(2), flag(3));
                (header.ack, header.urg, header.ece, header.cwr) = (flag(4), flag(5), flag(6), flag(7));
                header.set_options_raw(&vec![1; usize::from(option_words) * 4]).unwrap();
                packet.tcp_header(header).write(&mut bytes, &self.payload).unwrap();
            }
            Transport::Udp => packet.udp(src_port, dst_port).write(&mut bytes, &self.payload).unwrap(),
            Transport::Icmp { kind, code } if is_v4 => {
                packet.icmpv4_raw(kind, code, [1, 2, 3, 4]).write(&mut bytes, &self.payload).unwrap();
            }
            Transport::Icmp { kind, code } => {
                packet.icmpv6_raw(kind, code, [1, 2, 3, 4]).write(&mut bytes, &self.payload).unwrap();
            }
            Transport::Other(protocol) => packet.write(&mut bytes, IpNumber(protocol), &self.payload).unwrap(),
        }
        bytes
    }
}

fn v4() -> impl Strategy<Value = IpHeaders> {
    let fragment = prop_oneof![Just((0, false)), Just((0, true)), (1u16..8_000, any::<bool>())];
    (any::<[u8; 10]>(), any::<u16>(), any::<(u8, u8, bool)>(), 0usize..=10, fragment).prop_map(
        |(addresses, id, (ttl, tos, df), option_words, (offset, more))| {
            let [a, b, c, d, e, f, g, h, ..] = addresses;
            let mut header = Ipv4Header::new(0, ttl, IpNumber(0), [a, b, c, d], [e, f, g, h]).unwrap();
            header.identification = id;
            header.dscp = etherparse::IpDscp::try_new(tos >> 2).unwrap();
            header.ecn = etherparse::IpEcn::try_new(tos & 3).unwrap();
            header.dont_fragment = df;
            header.more_fragments = more;
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
            header.options = Ipv4Options::try_from(vec![1; option_words * 4].as_slice()).unwrap();
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        },
    )
}

fn v6() -> impl Strategy<Value = IpHeaders> {
    let raw = || (0usize..4).prop_map(|units| Ipv6RawExtHeader::new_raw(IpNumber(0), &vec![0; 6 + units * 8]).unwrap());
    let routing = (raw(), prop::option::of(raw()))
        .prop_map(|(routing, final_destination_options)| Ipv6RoutingExtensions { routing, final_destination_options });
    let fragment = prop_oneof![Just((0u16, false)), Just((0, true)), (1u16..8_000, any::<bool>())];
    let fragment = (fragment, any::<u32>()).prop_map(|((offset, more), id)| {
        Ipv6FragmentHeader::new(IpNumber(0), IpFragOffset::try_new(offset).unwrap(), more, id)
    });
    let auth = (0usize..4).prop_map(|words| IpAuthHeader::new(IpNumber(0), 1, 2, &vec![0; words * 4]).unwrap());
    let extensions = (
        prop::option::weighted(0.25, raw()),
        prop::option::weighted(0.25, raw()),
        prop::option::weighted(0.25, routing),
        prop::option::weighted(0.25, fragment),
        prop::option::weighted(0.25, auth),
    );
    (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<(u8, u8)>(), 0u32..1 << 20, extensions).prop_map(
        |(source, destination, (traffic_class, hop_limit), label, extensions)| {
            let header = Ipv6Header {
                traffic_class,
                flow_label: Ipv6FlowLabel::try_new(label).unwrap(),
                payload_length: 0,
                next_header: IpNumber(0),
                hop_limit,
                source,
                destination,
            };
            let (hop_by_hop_options, destination_options, mut routing, fragment, mut auth) = extensions;
            if fragment.as_ref().is_some_and(|fragment: &Ipv6FragmentHeader| fragment.fragment_offset.value() != 0) {
                // Behind a later fragment's header there is payload only.
                auth = None;
                routing = routing.map(|routing| Ipv6RoutingExtensions { final_destination_options: None, ..routing });
            }
            let extensions = Ipv6Extensions { hop_by_hop_options, destination_options, routing, fragment, auth };
            IpHeaders::Ipv6(header, extensions)
        },
    )
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let transport = prop_oneof![
        (any::<u8>(), 0u8..=10).prop_map(|(flags, option_words)| Transport::Tcp { flags, option_words }),
        Just(Transport::Udp),
        // Not 13 and 14, timestamps: etherparse takes them for a longer header, and refuses short ones.
        (prop_oneof![0u8..13, 15u8..], any::<u8>()).prop_map(|(kind, code)| Transport::Icmp { kind, code }),
        prop::sample::select(vec![4, 47, 50, 59, 132]).prop_map(Transport::Other),
    ];
    let payload = (0usize..20).prop_map(|words| (0..).take(words * 8).collect());
    let ip = prop_oneof![v4().boxed(), v6().boxed()];
    (prop::collection::vec(0u16..4_096, 0..=2), ip, transport, any::<(u16, u16)>(), payload)
        .prop_map(|(tags, ip, transport, ports, payload)| Recipe { tags, ip, transport, ports, payload })
}

/// A recipe of the plainest shape.
fn plain_recipe() -> impl Strategy<Value = Recipe> {
    (recipe(), any::<(bool, u8)>(), 0u8..=10).prop_map(|(recipe, (tcp, flags), option_words)| {
        let ip = match recipe.ip {
            IpHeaders::Ipv4(mut header, _) => {
                header.options = Ipv4Options::default();
                (header.more_fragments, header.fragment_offset) = (false, IpFragOffset::ZERO);
                IpHeaders::Ipv4(header, Ipv4Extensions::default())
            }
            IpHeaders::Ipv6(header, _) => IpHeaders::Ipv6(header, Ipv6Extensions::default()),
        };
        let transport = if tcp { Transport::Tcp { flags, option_words } } else { Transport::Udp };
        Recipe { tags: vec![], ip, transport, ..recipe }
    })
}

/// The frame's headers in etherparse's reading; none where it refuses the frame or reads by other rules than ours.
fn reference(bytes: &[u8]) -> Option<Headers> {
    let theirs = PacketHeaders::from_ethernet_slice(bytes).ok()?;
    let link = theirs.link.clone()?.ethernet2()?;
    let mut headers = Headers {
        dst: Mac(link.destination),
        src: Mac(link.source),
        ethertype: link.ether_type.0,
        l3_offset: 14,
        ..Headers::default()
    };
    for extension in &theirs.link_exts {
        // It takes 0x9100 and MACsec for tags, we for payload.
        let LinkExtHeader::Vlan(tag) = extension else { return None };
        if !vlan::is_tag(headers.ethertype) {
            return None;
        }
        headers.vlan = headers.vlan.or(Some(VlanTag { vid: tag.vlan_id.value(), priority: tag.pcp.value() }));
        headers.ethertype = tag.ether_type.0;
        headers.l3_offset += 4;
    }
    headers.l4_offset = headers.l3_offset;
    match theirs.net {
        None => {}
        Some(NetHeaders::Arp(packet)) => {
            let packet = packet.try_eth_ipv4().ok()?;
            headers.l4_offset += 28;
            headers.l3 = L3::Arp(Arp {
                operation: packet.operation.0,
                sender_mac: Mac(packet.sender_mac),
                sender_ip: packet.sender_ipv4.into(),
                target_mac: Mac(packet.target_mac),
                target_ip: packet.target_ipv4.into(),
            });
        }
        Some(NetHeaders::Ipv4(header, extensions)) => {
            headers.l4_offset += u16::try_from(header.header_len()).unwrap();
            headers.l3 = L3::V4(reference_v4(&header));
            // It reads on behind an authentication header over IPv4, we do not.
            headers.l4 = if extensions.auth.is_some() { L4::None } else { reference_l4(theirs.transport, false) };
        }
        Some(NetHeaders::Ipv6(header, extensions)) => {
            let v6 = reference_v6(&header, &extensions)?;
            headers.l4_offset += 40 + v6.extensions_len;
            headers.l3 = L3::V6(v6);
            headers.l4 = reference_l4(theirs.transport, true);
        }
    }
    Some(headers)
}

fn reference_v4(header: &Ipv4Header) -> Ipv4 {
    let (offset, more) = (header.fragment_offset.byte_offset(), header.more_fragments);
    Ipv4 {
        src: header.source.into(),
        dst: header.destination.into(),
        tos: header.dscp.value() << 2 | header.ecn.value(),
        ttl: header.time_to_live,
        protocol: header.protocol.0,
        header_len: u8::try_from(header.header_len()).unwrap(),
        total_len: header.total_len,
        dont_fragment: header.dont_fragment,
        fragment: (offset != 0 || more).then_some(Fragment { offset, more, id: u32::from(header.identification) }),
    }
}

/// None where it stops at the second header of a kind, or reads on behind the fragment header of a later fragment.
fn reference_v6(header: &Ipv6Header, extensions: &Ipv6Extensions) -> Option<Ipv6> {
    let protocol = extensions.next_header(header.next_header).ok()?.0;
    let fragment = extensions.fragment.as_ref().map(|fragment| Fragment {
        offset: fragment.fragment_offset.byte_offset(),
        more: fragment.more_fragments,
        id: fragment.identification,
    });
    let stopped = [0, 43, 44, 51, 60].contains(&protocol);
    let later = fragment.is_some_and(|fragment| fragment.offset != 0);
    if stopped || later && extensions.fragment.as_ref()?.next_header.0 != protocol {
        return None;
    }
    Some(Ipv6 {
        src: header.source.into(),
        dst: header.destination.into(),
        traffic_class: header.traffic_class,
        hop_limit: header.hop_limit,
        flow_label: header.flow_label.value(),
        protocol,
        extensions_len: u16::try_from(extensions.header_len()).unwrap(),
        payload_len: header.payload_length,
        fragment,
    })
}

fn reference_l4(transport: Option<TransportHeader>, is_v6: bool) -> L4 {
    match transport {
        Some(TransportHeader::Tcp(tcp)) => {
            let flags = [tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack, tcp.urg, tcp.ece, tcp.cwr];
            L4::Tcp(TcpHeader {
                src_port: tcp.source_port,
                dst_port: tcp.destination_port,
                header_len: u8::try_from(tcp.header_len()).unwrap(),
                flags: flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u8::from(flag)),
            })
        }
        Some(TransportHeader::Udp(udp)) => {
            L4::Udp(UdpHeader { src_port: udp.source_port, dst_port: udp.destination_port, len: udp.length })
        }
        Some(TransportHeader::Icmpv4(icmp)) if !is_v6 => {
            let bytes = icmp.to_bytes();
            L4::Icmp4(IcmpHeader { kind: bytes[0], code: bytes[1] })
        }
        Some(TransportHeader::Icmpv6(icmp)) if is_v6 => {
            let bytes = icmp.to_bytes();
            L4::Icmp6(IcmpHeader { kind: bytes[0], code: bytes[1] })
        }
        _ => L4::None,
    }
}

/// Asserts that both decoders read the same. Of a first fragment etherparse reads no L4 header.
fn check_same(ours: Headers, theirs: Headers) -> Result<(), TestCaseError> {
    let first = ours.fragment().is_some_and(|fragment| fragment.offset == 0 && fragment.more);
    let theirs = if first { Headers { l4: ours.l4, ..theirs } } else { theirs };
    prop_assert_eq!(ours, theirs);
    Ok(())
}

/// Asserts what later stages rely on.
fn check_bounds(headers: &Headers, len: usize) -> Result<(), TestCaseError> {
    let packet_end = usize::from(headers.l3_offset) + headers.packet_len(len);
    prop_assert!(packet_end <= len, "{headers:?} in {len} bytes");
    prop_assert!(headers.l3_offset <= headers.l4_offset && headers.header_len() <= packet_end, "{headers:?}");
    Ok(())
}

/// Asserts that the look at plain frames agrees with the parse, and sees all that are plain.
fn check_plain(bytes: &[u8], offload: &Offload) -> Result<(), TestCaseError> {
    let parsed = parse(bytes, offload).ok().filter(is_plain);
    let found = Plain::read(bytes, offload);
    prop_assert_eq!(found.is_some(), parsed.is_some(), "{:?} {:?}", found, parsed);
    if let (Some(plain), Some(headers)) = (found, parsed) {
        let (tos, hops_left, protocol) = match headers.l3 {
            L3::V4(ip) => (ip.tos, ip.ttl, ip.protocol),
            L3::V6(ip) => (ip.traffic_class, ip.hop_limit, ip.protocol),
            _ => unreachable!("plain"),
        };
        let expected = Plain {
            flow_hash: headers.flow_hash(),
            packet_len: headers.packet_len(bytes.len()),
            header_len: u16::try_from(headers.header_len()).unwrap(),
            is_v6: headers.is_v6(),
            protocol,
            tos,
            hops_left,
        };
        prop_assert_eq!(plain, expected);
    }
    Ok(())
}

/// Whole TCP or UDP to one station, without tags, options or extension headers, with a length in its IP header.
fn is_plain(headers: &Headers) -> bool {
    let l3 = match headers.l3 {
        L3::V4(ip) => ip.header_len == 20 && ip.total_len != 0,
        L3::V6(ip) => ip.extensions_len == 0 && ip.payload_len != 0,
        _ => false,
    };
    let whole = headers.fragment().is_none() && headers.vlan.is_none();
    l3 && whole && headers.ports().is_some() && !headers.dst.is_group()
}

/// What makes a plain frame its flow.
fn flow(headers: &Headers) -> impl PartialEq + std::fmt::Debug + use<> {
    let tcp = matches!(headers.l4, L4::Tcp(_));
    (headers.dst, headers.src, headers.src_ip(), headers.dst_ip(), tcp, headers.ports())
}

/// Makes an IPv4 header's checksum right again, where there is one, so that mutations get behind it.
fn mend(bytes: &mut [u8]) {
    for at in [14, 18, 22] {
        if bytes.get(at - 2..at) == Some(&[8, 0])
            && let Some(mut view) = bytes.get_mut(at..).and_then(ipv4::ViewMut::new)
        {
            view.fill_checksum();
        }
    }
}

fn offload() -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        Just(Checksum::Unknown),
        (0u16..100, prop::sample::select(vec![2, 6, 16, 65_535]))
            .prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        prop::sample::select(vec![(34, 16), (54, 16), (34, 6), (54, 6)])
            .prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let kind = prop::sample::select(vec![GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp]);
    let gso = (kind, 0u16..100).prop_map(|(kind, size)| Gso { kind, size, header_len: 9_999 });
    (checksum, prop::option::of(gso)).prop_map(|(checksum, gso)| Offload { checksum, gso })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn a_built_frame_is_read_as_etherparse_reads_it(recipe in recipe(), padding in 0usize..20) {
        let mut bytes = recipe.bytes();
        let packet_end = bytes.len();
        bytes.resize(packet_end + padding, 0);
        // A packet that is there in full and holds no payload at all is the one thing we refuse and etherparse takes.
        let v6_payload_len = matches!(recipe.ip, IpHeaders::Ipv6(..)).then(|| packet_end - 14 - 4 * recipe.tags.len() - 40);
        let empty = v6_payload_len == Some(0) && !matches!(recipe.transport, Transport::Other(59));
        match parse(&bytes, &Offload::default()) {
            Ok(ours) => {
                check_same(ours, reference(&bytes).unwrap())?;
                check_bounds(&ours, bytes.len())?;
                prop_assert_eq!(usize::from(ours.l3_offset) + ours.packet_len(bytes.len()), packet_end);
            }
            Err(DropReason::Ipv6Malformed) => prop_assert!(empty, "{:?}", recipe),
            Err(DropReason::FragmentMalformed) => {
                // Payloads are multiples of eight, L4 headers need not be; the rest reaches too far.
                let fragment = reference(&bytes).unwrap().fragment().unwrap();
                let end = usize::from(fragment.offset) + bytes.len();
                prop_assert!(fragment.more || end > 65_535, "{:?}", recipe);
            }
            Err(other) => prop_assert!(false, "{} of {:?}", other.name(), recipe),
        }
        check_plain(&bytes, &Offload::default())?;
    }

    #[test]
    fn a_frame_cut_short_anywhere_is_a_named_fault(recipe in recipe(), offload in offload()) {
        let bytes = recipe.bytes();
        for len in 0..bytes.len() {
            prop_assert!(parse(&bytes[..len], &Offload::default()).is_err(), "{} of {}", len, bytes.len());
            check_plain(&bytes[..len], &offload)?;
        }
    }

    #[test]
    fn a_mutated_frame_is_read_as_etherparse_reads_it_or_refused(
        recipe in recipe(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        mended in prop::bool::weighted(0.9),
        offload in offload(),
    ) {
        let mut bytes = recipe.bytes();
        // Most changes where the headers are.
        let headers_len = bytes.len().min(100);
        for (at, value) in changes {
            bytes[at.index(headers_len)] = value;
        }
        if mended {
            mend(&mut bytes);
        }
        if let (Ok(ours), Some(theirs)) = (parse(&bytes, &Offload::default()), reference(&bytes)) {
            check_same(ours, theirs)?;
        }
        let mut reused = parse(&recipe.bytes(), &Offload::default()).unwrap_or_default();
        for offload in [offload, Offload::default()] {
            let result = parse(&bytes, &offload);
            prop_assert_eq!(parse_into(&bytes, &offload, &mut reused).map(|()| reused), result);
            if let Ok(headers) = result {
                check_bounds(&headers, bytes.len())?;
            }
            check_plain(&bytes, &offload)?;
        }
    }

    #[test]
    fn plain_frames_of_one_flow_have_its_words_and_others_have_not(
        recipe in plain_recipe(),
        (at, value) in (any::<Index>(), any::<u8>()),
    ) {
        let (frame, offload) = (recipe.bytes(), Offload::default());
        let mut other = frame.clone();
        other[at.index(frame.len().min(80))] = value;
        mend(&mut other);
        let [one, two] =
            [&frame, &other].map(|bytes| Plain::read(bytes, &offload).zip(parse(bytes, &offload).ok()));
        let (plain, headers) = one.unwrap();
        let words = plain.flow_words(&frame, 7);
        prop_assert!(plain.is_of_flow(&frame, 7, &words) && !plain.is_of_flow(&frame, 8, &words));
        if let Some((other_plain, other_headers)) = two {
            let is_same = flow(&headers) == flow(&other_headers);
            prop_assert_eq!(words == other_plain.flow_words(&other, 7), is_same);
            prop_assert_eq!(other_plain.is_of_flow(&other, 7, &words), is_same);
        }
    }

    #[test]
    fn random_bytes_never_panic_and_stay_in_bounds(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        start in prop::sample::select(vec![vec![], vec![8, 0, 0x45], vec![8, 0], vec![8, 6], vec![0x86, 0xdd, 0x60], vec![0x81, 0]]),
        offload in offload(),
    ) {
        if let Some(place) = bytes.get_mut(12..12 + start.len()) {
            place.copy_from_slice(&start);
        }
        mend(&mut bytes);
        for offload in [offload, Offload::default()] {
            if let Ok(headers) = parse(&bytes, &offload) {
                check_bounds(&headers, bytes.len())?;
                let _ = headers.flow_hash();
            }
            check_plain(&bytes, &offload)?;
        }
    }
}

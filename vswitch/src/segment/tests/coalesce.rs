//! Joining: each rule by itself, and then that cutting undoes it whatever came over the wire.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::Offload;
use crate::segment::{Join, Run, Segment};
use crate::wire::parse;

const SIZE: usize = 100;
/// Where headers lie in the frames of the table: TCP over IPv4 without options, and over IPv6.
const L3: usize = 14;
const L4_V4: usize = L3 + 20;
const L4_V6: usize = L3 + 40;

/// Joins the frames of one flow as they come.
fn joined(frames: &[Vec<u8>]) -> Vec<Frame> {
    let mut done: Vec<Frame> = vec![];
    let mut open: Option<Run> = None;
    let finish = |run: Option<Run>, frame: Option<&mut Frame>| {
        if let (Some(run), Some(frame)) = (run, frame)
            && let Some(offload) = run.finish(frame.bytes_mut())
        {
            frame.offload = offload;
        }
    };
    for bytes in frames {
        let segment = Segment::read(bytes);
        let last = done.last_mut();
        if let (Some(segment), Some(run), Some(frame)) = (&segment, &mut open, last) {
            let join = run.join(frame.bytes(), segment);
            if join != Join::Refused {
                assert!(frame.append(segment.payload()));
            }
            if join != Join::Joined {
                finish(open.take(), Some(frame));
            }
            if join != Join::Refused {
                continue;
            }
        }
        finish(open.take(), done.last_mut());
        done.push(frame_of(bytes));
        open = segment.as_ref().and_then(Run::begin);
    }
    finish(open.take(), done.last_mut());
    done
}

/// The packets those frames stand for.
fn cut_again(frames: Vec<Frame>) -> Vec<Vec<u8>> {
    let cut = |frame: Frame| {
        let headers = parse(frame.bytes(), &frame.offload).unwrap_or_default();
        if frame.offload == Offload::default() {
            return vec![frame.bytes().to_vec()];
        }
        sent(frame, &headers, u16::MAX).unwrap()
    };
    frames.into_iter().flat_map(cut).collect()
}

/// Puts the checksums of a frame of the table right.
fn complete(bytes: &mut [u8]) {
    let over_v4 = bytes[L3] >> 4 == 4;
    let l4 = if over_v4 { L4_V4 } else { L4_V6 };
    if over_v4 {
        bytes[L3 + 10..L3 + 12].fill(0);
        let check = slow_checksum(&bytes[L3..l4]);
        bytes[L3 + 10..L3 + 12].copy_from_slice(&check.to_be_bytes());
    }
    let pseudo = pseudo(bytes, l4);
    bytes[l4 + 16..l4 + 18].fill(0);
    let check = slow_checksum(&[&pseudo, &bytes[l4..]].concat());
    bytes[l4 + 16..l4 + 18].copy_from_slice(&check.to_be_bytes());
}

fn pseudo(bytes: &[u8], l4: usize) -> Vec<u8> {
    let addresses = if l4 == L4_V4 { 8 } else { 32 };
    let len = u32::try_from(bytes.len() - l4).unwrap();
    [&bytes[l4 - addresses..l4], &[0, 6], &len.to_be_bytes()].concat()
}

/// Two segments of [`SIZE`] bytes each that belong together.
fn pair(packet: &Packet) -> [Vec<u8>; 2] {
    let segments = packet.segments(SIZE.try_into().unwrap());
    [segments[0].bytes(), segments[1].bytes()]
}

type Change = fn(&mut Vec<u8>, &mut Vec<u8>);

fn check(packet: &Packet, cases: &[(&str, bool, Change)]) {
    for (rule, joins, change) in cases {
        let [mut first, mut second] = pair(packet);
        change(&mut first, &mut second);
        complete(&mut first);
        complete(&mut second);
        let frames = joined(&[first.clone(), second.clone()]);
        assert_eq!(frames.len() == 1, *joins, "{rule}");
        if !joins {
            assert_eq!([frames[0].bytes(), frames[1].bytes()], [&first[..], &second[..]], "unchanged: {rule}");
            assert!(frames.iter().all(|frame| frame.offload == Offload::default()), "{rule}");
        }
    }
}

#[test]
fn over_ipv4_each_rule_decides() {
    check(
        &Packet::tcp4(2 * SIZE),
        &[
            ("segments that continue one another join", true, |_, _| {}),
            ("another source MAC", false, |_, b| b[8] ^= 1),
            ("another TOS", false, |_, b| b[L3 + 1] ^= 1),
            ("another TTL", false, |_, b| b[L3 + 8] -= 1),
            ("DF on one only", false, |_, b| b[L3 + 6] ^= 0x40),
            ("the reserved bit on one only", false, |_, b| b[L3 + 6] ^= 0x80),
            ("a fragment", false, |_, b| b[L3 + 6] |= 0x20),
            ("an identification that jumps", false, |_, b| b[L3 + 5] ^= 4),
            ("the same identification with DF", true, |a, b| b[L3 + 4..L3 + 6].copy_from_slice(&a[L3 + 4..L3 + 6])),
            ("the same identification without DF", false, |a, b| {
                (a[L3 + 6], b[L3 + 6]) = (0, 0);
                b[L3 + 4..L3 + 6].copy_from_slice(&a[L3 + 4..L3 + 6]);
            }),
            ("another source address", false, |_, b| b[L3 + 15] ^= 1),
            ("another port", false, |_, b| b[L4_V4 + 1] ^= 1),
            ("a gap in the sequence", false, |_, b| b[L4_V4 + 7] ^= 1),
            ("another acknowledgement", false, |_, b| b[L4_V4 + 11] ^= 1),
            ("another window", false, |_, b| b[L4_V4 + 15] ^= 1),
            ("another urgent pointer", false, |_, b| b[L4_V4 + 19] ^= 1),
            ("ECE on one only", false, |_, b| b[L4_V4 + 13] ^= 0x40),
            ("ECE on both", true, |a, b| {
                a[L4_V4 + 13] |= 0x40;
                b[L4_V4 + 13] |= 0x40;
            }),
            ("CWR on the first", true, |a, _| a[L4_V4 + 13] |= 0x80),
            ("CWR on the second", false, |_, b| b[L4_V4 + 13] |= 0x80),
            ("PSH on the first", false, |a, _| a[L4_V4 + 13] |= 0x08),
            ("PSH on the second", true, |_, b| b[L4_V4 + 13] |= 0x08),
            ("FIN", false, |_, b| b[L4_V4 + 13] |= 0x01),
            ("SYN", false, |_, b| b[L4_V4 + 13] |= 0x02),
            ("RST", false, |_, b| b[L4_V4 + 13] |= 0x04),
            ("URG", false, |_, b| b[L4_V4 + 13] |= 0x20),
            ("no ACK on either", false, |a, b| (a[L4_V4 + 13], b[L4_V4 + 13]) = (0, 0)),
            ("accurate ECN's flag on one only", false, |_, b| b[L4_V4 + 12] ^= 1),
            ("Ethernet padding behind the second", false, |_, b| b.extend([0; 4])),
        ],
    );
}

#[test]
fn over_ipv6_each_rule_decides() {
    check(
        &Packet::tcp4(2 * SIZE).over_v6(&[]),
        &[
            ("segments that continue one another join", true, |_, _| {}),
            ("another traffic class", false, |_, b| b[L3 + 1] ^= 0x10),
            ("another flow label", false, |_, b| b[L3 + 3] ^= 1),
            ("another hop limit", false, |_, b| b[L3 + 7] -= 1),
            ("another destination", false, |_, b| b[L3 + 39] ^= 1),
            ("another port", false, |_, b| b[L4_V6 + 3] ^= 1),
            ("a gap in the sequence", false, |_, b| b[L4_V6 + 7] ^= 1),
            ("PSH on the second", true, |_, b| b[L4_V6 + 13] |= 0x08),
        ],
    );
}

#[test]
fn options_of_tcp_join_when_equal_and_those_of_ip_never() {
    let with_options = |options: &[u8]| Packet {
        transport: Transport::Tcp { options: options.to_vec(), sequence: 7, flags: 0x10 },
        ..Packet::tcp4(2 * SIZE)
    };
    let [first, second] = pair(&with_options(&[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 5]));
    let [_, later] = pair(&with_options(&[1, 1, 8, 10, 0, 0, 1, 9, 0, 0, 0, 5]));
    let [_, none] = pair(&with_options(&[]));
    for (next, frames) in [(second, 1), (later, 2), (none, 2)] {
        assert_eq!(joined(&[first.clone(), next]).len(), frames);
    }
    let ip = Ip::V4 { options: vec![1, 1, 1, 1], id: 1, dont_fragment: true };
    assert_eq!(joined(&pair(&Packet { ip, ..Packet::tcp4(2 * SIZE) })).len(), 2);
    assert_eq!(joined(&pair(&Packet { tags: 1, ..Packet::tcp4(2 * SIZE) })).len(), 2);
    let extensions = [0, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(joined(&pair(&Packet::tcp4(2 * SIZE).over_v6(&extensions))).len(), 2);
    assert_eq!(joined(&pair(&Packet::udp4(2 * SIZE))).len(), 2);
}

#[test]
fn lengths_decide_what_joins_and_what_ends_a_run() {
    let segments = |payload: usize| -> Vec<Vec<u8>> {
        Packet::tcp4(payload).segments(SIZE.try_into().unwrap()).iter().map(Packet::bytes).collect()
    };
    let counts = |frames: &[Vec<u8>]| -> Vec<usize> { joined(frames).iter().map(Frame::segments).collect() };
    assert_eq!(counts(&segments(5 * SIZE)), [5]);
    assert_eq!(counts(&segments(5 * SIZE + 1)), [6], "only the last is shorter");
    let mut longer = segments(3 * SIZE);
    let bytes = Packet::tcp4(4 * SIZE).segments(300)[0].bytes();
    longer.insert(0, bytes);
    assert_eq!(counts(&longer), [1, 3], "what comes again does not continue");
    let acknowledgement = Packet { payload: vec![], ..Packet::tcp4(0) }.bytes();
    let [first, second, third] = segments(3 * SIZE).try_into().unwrap();
    assert_eq!(counts(&[first, acknowledgement, second, third]), [1, 1, 2], "order is kept");
    // 45 segments of 1,448 bytes are what 65,535 bytes have room for.
    let full: Vec<_> = [Packet::tcp4(65_000)]
        .iter()
        .flat_map(|packet| packet.segments(1_448))
        .chain(std::iter::once(Packet {
            transport: Transport::Tcp { options: vec![], sequence: 0xffff_ff00_u32.wrapping_add(65_000), flags: 0x10 },
            ..Packet::tcp4(1_000)
        }))
        .map(|packet| packet.bytes())
        .collect();
    assert_eq!(counts(&full), [45, 1], "the last one is shorter and ends the run");
    let mut endless = Packet::tcp4(1_448);
    let all: Vec<_> = (0..100u16)
        .map(|_| {
            let bytes = endless.bytes();
            if let (Ip::V4 { id, .. }, Transport::Tcp { sequence, .. }) = (&mut endless.ip, &mut endless.transport) {
                *id = id.wrapping_add(1);
                *sequence = sequence.wrapping_add(1_448);
            }
            bytes
        })
        .collect();
    let frames = joined(&all);
    assert_eq!(frames.iter().map(Frame::segments).collect::<Vec<_>>(), [45, 45, 10]);
    assert!(frames[0].len() <= L3 + 65_535 && frames[0].len() + 1_448 > L3 + 65_535);
}

#[test]
fn a_damaged_segment_is_neither_joined_nor_repaired() {
    let segments: Vec<_> = Packet::tcp4(4 * SIZE).segments(100).iter().map(Packet::bytes).collect();
    for damaged in 0..4 {
        for at in [L3 + 10, L4_V4 + 16, L4_V4 + 50] {
            let mut frames = segments.clone();
            frames[damaged][at] ^= 0x10;
            let joined = joined(&frames);
            let alone = joined.iter().find(|frame| frame.bytes() == frames[damaged]).unwrap();
            assert_eq!(alone.offload, Offload::default());
            assert_eq!(joined.iter().map(Frame::segments).sum::<usize>(), 4);
            assert!(joined.len() < 4, "the others join");
        }
    }
}

#[test]
fn a_checksum_that_was_left_open_counts_as_right() {
    for packet in [Packet::tcp4(2 * SIZE), Packet::tcp4(2 * SIZE).over_v6(&[])] {
        let open: Vec<_> = packet.segments(100).iter().map(|part| part.partial_frame().bytes().to_vec()).collect();
        let [first, second] = pair(&packet);
        for frames in [[open[0].clone(), open[1].clone()], [first, open[1].clone()], [open[0].clone(), second]] {
            let joined = joined(&frames);
            assert_eq!((joined.len(), joined[0].bytes()), (1, packet.partial_frame().bytes()));
            assert_eq!(joined[0].offload, packet.super_frame(100).offload);
        }
    }
}

fn segments() -> impl Strategy<Value = (Packet, u16)> {
    let options = (0..=10usize).prop_map(|words| vec![1; words * 4]);
    let flags = any::<u8>().prop_map(|flags| flags & 0xc8 | 0x10);
    let ip4 = (any::<u16>(), any::<bool>())
        .prop_map(|(id, dont_fragment)| Ip::V4 { options: vec![], id, dont_fragment })
        .boxed();
    let ip = prop_oneof![ip4, Just(Ip::V6 { extensions: vec![] }).boxed()];
    (ip, options, any::<u32>(), flags, vec(any::<u8>(), 1..40_000), 200..9_000u16).prop_map(
        |(ip, options, sequence, flags, payload, size)| {
            let transport = Transport::Tcp { options, sequence, flags };
            (Packet { tags: 0, ip, transport, payload }, size)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_cut_is_joined_again((packet, size) in segments()) {
        let cut: Vec<_> = packet.segments(size).iter().map(Packet::bytes).collect();
        let frames = joined(&cut);
        prop_assert_eq!(frames.len(), 1);
        if cut.len() > 1 {
            let expected = packet.partial_frame();
            prop_assert_eq!(frames[0].bytes(), expected.bytes());
            prop_assert_eq!(frames[0].offload, packet.super_frame(size).offload);
            prop_assert!(parse(frames[0].bytes(), &frames[0].offload).is_ok());
        }
    }

    #[test]
    fn a_bad_wire_changes_neither_packets_nor_their_order(
        (packet, size) in segments(),
        faults in vec((0..6u8, any::<u16>()), 0..400),
    ) {
        let mut wire: Vec<Vec<u8>> = vec![];
        for (segment, (fault, at)) in packet.segments(size).iter().zip(faults.iter().chain(std::iter::repeat(&(9, 0)))) {
            let mut bytes = segment.bytes();
            let place = usize::from(*at) % bytes.len();
            match fault {
                0 => continue,
                1 => wire.push(bytes.clone()),
                2 => bytes[place] ^= 0x40,
                3 if !wire.is_empty() => {
                    wire.insert(wire.len() - 1, bytes);
                    continue;
                }
                _ => {}
            }
            wire.push(bytes);
        }
        prop_assert_eq!(cut_again(joined(&wire)), wire);
    }

    #[test]
    fn no_bytes_make_it_panic((packet, size) in segments(), len in 0..200usize, flips in vec((0..90usize, any::<u8>()), 0..4)) {
        let mut frames: Vec<_> = packet.segments(size).iter().take(3).map(Packet::bytes).collect();
        for (index, frame) in frames.iter_mut().enumerate() {
            flips.iter().filter(|(at, _)| at % 3 == index).for_each(|(at, flip)| frame[*at % 60] ^= flip);
        }
        frames[1 % packet.segments(size).len().min(3)].truncate(len);
        let _ = joined(&frames);
    }
}

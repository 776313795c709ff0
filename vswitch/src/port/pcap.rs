//! Capture and replay: decorators that write what passes into a pcap file, and a pcap file as a port.
//!
//! Frames are written as Ethernet, tunnelled ones without their VXLAN header. Capturing locks and writes a file, so it
//! is for tests and for looking, not for speed; a file that can not be written ends the capture, not the traffic.

use std::fmt;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError};

use super::{Flushed, Outgoing, PortRx, PortTx, RxStatus, TxError};
use crate::frame::{Batch, FramePool};
use crate::limits::FRAME_BYTES_MAX;
use crate::sys::clock::unix_now;
use crate::wire::vxlan;

/// Longest packet the files may hold; what tcpdump writes by default.
const SNAP_BYTES: u32 = 262_144;
const _: () = assert!(FRAME_BYTES_MAX <= SNAP_BYTES as usize);

/// A pcap file that several ports and threads write to. Clones share it.
#[derive(Clone)]
pub struct Capture(Arc<Mutex<Option<Writer>>>);

type Writer = PcapWriter<Box<dyn Write + Send>>;

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Capture").finish()
    }
}

impl Capture {
    /// Starts a capture: writes the file's header.
    ///
    /// # Errors
    /// When the header can not be written.
    pub fn new(file: impl Write + Send + 'static) -> Result<Self, PcapError> {
        let header = PcapHeader { snaplen: SNAP_BYTES, datalink: DataLink::ETHERNET, ..PcapHeader::default() };
        let file: Box<dyn Write + Send> = Box::new(file);
        Ok(Self(Arc::new(Mutex::new(Some(PcapWriter::with_header(file, header)?)))))
    }

    /// Whether packets are still being written; false after an error.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Writes one packet at a wall-clock time.
    fn write(&self, time: Duration, header: &[u8], payload: &[u8]) {
        let bytes = [header, payload].concat();
        let len = u32::try_from(bytes.len()).unwrap_or(SNAP_BYTES);
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writer.as_mut().map(|writer| writer.write_packet(&PcapPacket::new_owned(time, len, bytes)));
        if matches!(written, Some(Err(_))) {
            *writer = None;
        }
    }
}

/// Captures what a port receives.
#[derive(Debug)]
pub struct CaptureRx<P> {
    port: P,
    capture: Capture,
}

impl<P: PortRx> CaptureRx<P> {
    /// Puts a capture around a receiving half.
    #[must_use]
    pub fn new(port: P, capture: Capture) -> Self {
        Self { port, capture }
    }
}

impl<P: PortRx> PortRx for CaptureRx<P> {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus {
        let before = batch.len();
        let status = self.port.rx(pool, batch, budget);
        let now = unix_now();
        for item in &batch.items()[before..] {
            let hidden = if item.frame.outer.is_some() { vxlan::HEADER_LEN } else { 0 };
            self.capture.write(now, item.frame.bytes().get(hidden..).unwrap_or_default(), &[]);
        }
        status
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.port.poll_fd()
    }
}

/// Captures what a port sends, as it is asked to, whether the device takes it or not.
#[derive(Debug)]
pub struct CaptureTx<P> {
    port: P,
    capture: Capture,
}

impl<P: PortTx> CaptureTx<P> {
    /// Puts a capture around a sending half.
    #[must_use]
    pub fn new(port: P, capture: Capture) -> Self {
        Self { port, capture }
    }
}

impl<P: PortTx> PortTx for CaptureTx<P> {
    fn tx(&mut self, out: &Outgoing<'_>) -> Result<(), TxError> {
        let now = unix_now();
        for (header, payload) in out.packets() {
            self.capture.write(now, header, payload);
        }
        self.port.tx(out)
    }

    fn flush(&mut self) -> Flushed {
        self.port.flush()
    }
}

/// A pcap file as a receiving half: its packets one after the other, as fast as they are asked for; then closed.
pub struct PcapRx {
    reader: PcapReader<Box<dyn Read + Send>>,
}

impl fmt::Debug for PcapRx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapRx").finish_non_exhaustive()
    }
}

impl PcapRx {
    /// Reads the file's header.
    ///
    /// # Errors
    /// When it is no pcap file, or not one of Ethernet packets.
    pub fn new(file: impl Read + Send + 'static) -> Result<Self, PcapError> {
        let file: Box<dyn Read + Send> = Box::new(file);
        let reader = PcapReader::new(file)?;
        if reader.header().datalink != DataLink::ETHERNET {
            return Err(PcapError::InvalidField("the packets are not Ethernet (LINKTYPE_ETHERNET)"));
        }
        Ok(Self { reader })
    }
}

impl PortRx for PcapRx {
    fn rx(&mut self, pool: &mut FramePool, batch: &mut Batch, budget: usize) -> RxStatus {
        for _ in 0..budget.min(batch.room()) {
            let Some(mut frame) = pool.take() else { return RxStatus::More };
            let Some(Ok(packet)) = self.reader.next_packet() else {
                pool.give(frame);
                return RxStatus::Closed;
            };
            frame.fill(&packet.data);
            batch.push(frame);
        }
        RxStatus::More
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};

    use super::*;
    use crate::frame::{Frame, Outer};
    use crate::port::memory::{MemoryFrame, MemoryPort};
    use crate::port::{Piece, Pieces, PortCaps};

    /// A file in memory, readable while it is written.
    #[derive(Clone, Default)]
    struct SharedFile(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl SharedFile {
        fn packets(&self) -> Vec<Vec<u8>> {
            let mut port = PcapRx::new(Cursor::new(self.0.lock().unwrap().clone())).unwrap();
            let (mut pool, mut batch) = (FramePool::new(9), Batch::new());
            assert_eq!(port.rx(&mut pool, &mut batch, 9), RxStatus::Closed);
            batch.items().iter().map(|item| item.frame.bytes().to_vec()).collect()
        }
    }

    #[test]
    fn what_is_received_is_captured_and_tunnelled_frames_without_their_vxlan_header() {
        let (port, peer) = MemoryPort::pair(PortCaps::ALL);
        let file = SharedFile::default();
        let mut rx = CaptureRx::new(port.rx, Capture::new(file.clone()).unwrap());
        let outer = Outer { remote: [127, 0, 0, 1].into(), tos: 0 };
        peer.inject(MemoryFrame::new([1; 60]));
        peer.inject(MemoryFrame::new([2; 70]).with_outer(outer));
        peer.inject(MemoryFrame::new([3; 5]).with_outer(outer));
        let (mut pool, mut batch) = (FramePool::new(9), Batch::new());
        assert_eq!(rx.rx(&mut pool, &mut batch, 9), RxStatus::Drained);
        assert_eq!(batch.len(), 3);
        assert_eq!(file.packets(), [vec![1; 60], vec![2; 62], vec![]]);
    }

    #[test]
    fn what_is_sent_is_captured_packet_by_packet() {
        let (port, peer) = MemoryPort::pair(PortCaps::ALL);
        let file = SharedFile::default();
        let mut tx = CaptureTx::new(port.tx, Capture::new(file.clone()).unwrap());
        let mut frame = Frame::new();
        frame.fill(&[7; 20]);
        let list = [Piece { header: (0, 14), payload: (0, 10) }, Piece { header: (0, 14), payload: (10, 10) }];
        let pieces = Some(Pieces { headers: &[5; 14], list: &list });
        tx.tx(&Outgoing { frame: &frame, pieces, encap: None }).unwrap();
        tx.tx(&Outgoing { frame: &frame, pieces: None, encap: None }).unwrap();
        let packets: Vec<_> = peer.take().into_iter().map(|frame| frame.bytes).collect();
        assert_eq!(packets.len(), 3);
        assert_eq!(file.packets(), packets);
    }

    #[test]
    fn a_full_disk_ends_the_capture_and_not_the_traffic() {
        struct FullDisk(usize);
        impl Write for FullDisk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let capture = Capture::new(FullDisk(40)).unwrap();
        let (port, peer) = MemoryPort::pair(PortCaps::ALL);
        let mut tx = CaptureTx::new(port.tx, capture.clone());
        let mut frame = Frame::new();
        frame.fill(&[7; 60]);
        assert!(capture.is_running());
        tx.tx(&Outgoing { frame: &frame, pieces: None, encap: None }).unwrap();
        assert!(!capture.is_running());
        assert_eq!(peer.take().len(), 1);
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        assert!(PcapRx::new(Cursor::new(b"no pcap file at all, just text".to_vec())).is_err());
        let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
        let file = PcapWriter::with_header(Vec::new(), header).unwrap().into_writer();
        assert!(PcapRx::new(Cursor::new(file)).is_err());
    }
}

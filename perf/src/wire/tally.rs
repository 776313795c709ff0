//! What became of numbered frames: lost, doubled, out of order, and how long they took. Pure.
//!
//! A frame is out of order when one of its flow with a higher number came before it (RFC 4737, 3.3). Doubles are told
//! among the last [`WINDOW`] numbers of a flow; what is older counts as out of order.

use hdrhistogram::Histogram;

use super::frame::{FCS_BYTES, Mark};

/// Numbers of a flow behind the highest that are remembered.
const WINDOW: u64 = 4_096;
const WORDS: usize = 64;
/// The longest latency that is told from longer ones.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// One flow: the number behind the highest that came, and which of those before it came.
#[derive(Clone, Debug)]
struct Flow {
    next: u64,
    came: Box<[u64; WORDS]>,
}

impl Flow {
    fn new() -> Self {
        Self { next: 0, came: Box::new([0; WORDS]) }
    }

    /// Marks a number as come; whether it had come already.
    fn mark(&mut self, number: u64) -> bool {
        let bit = number % WINDOW;
        let word = &mut self.came[usize::try_from(bit / 64).unwrap_or(0)];
        let had = *word >> (bit % 64) & 1 == 1;
        *word |= 1 << (bit % 64);
        had
    }

    fn forget(&mut self, number: u64) {
        let bit = number % WINDOW;
        self.came[usize::try_from(bit / 64).unwrap_or(0)] &= !(1 << (bit % 64));
    }
}

/// How a frame came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Next,
    Late,
    Again,
}

/// What one sink saw of one trial.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// None takes the first trial that comes.
    trial: Option<u16>,
    flows: Vec<Option<Flow>>,
    /// Frames, each counted once.
    pub(super) received: u64,
    /// Bytes of those, FCS counted.
    pub(super) bytes: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
    /// Other frames that came in meanwhile.
    pub(super) foreign: u64,
    /// Nanoseconds from sending to receiving.
    pub(super) latency: Histogram<u64>,
    /// When the first and the last came, by the wall clock.
    pub(super) span_ns: Option<(u64, u64)>,
}

impl Tally {
    pub(super) fn new(trial: Option<u16>) -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Self {
            trial,
            flows: Vec::new(),
            received: 0,
            bytes: 0,
            duplicates: 0,
            reordered: 0,
            foreign: 0,
            latency: latency.unwrap_or_else(|_| unreachable!("these bounds are valid")),
            span_ns: None,
        }
    }

    /// A frame that is none of ours.
    pub(super) fn see_foreign(&mut self) {
        self.foreign += 1;
    }

    /// A test frame of `len` bytes without FCS that came in at a time of the wall clock.
    pub(super) fn see(&mut self, mark: &Mark, len: usize, unix_ns: u64) {
        if mark.trial != *self.trial.get_or_insert(mark.trial) {
            // Of a trial before.
            return self.see_foreign();
        }
        match self.order(mark) {
            Order::Again => {
                self.duplicates += 1;
                return;
            }
            Order::Late => self.reordered += 1,
            Order::Next => {}
        }
        self.received += 1;
        self.bytes += (len + FCS_BYTES) as u64;
        self.latency.saturating_record(unix_ns.saturating_sub(mark.unix_ns).max(1));
        let (first, last) = self.span_ns.unwrap_or((unix_ns, unix_ns));
        self.span_ns = Some((first.min(unix_ns), last.max(unix_ns)));
    }

    fn order(&mut self, mark: &Mark) -> Order {
        let at = usize::from(mark.flow);
        if self.flows.len() <= at {
            self.flows.resize(at + 1, None);
        }
        let flow = self.flows[at].get_or_insert_with(Flow::new);
        if mark.number >= flow.next {
            let from = flow.next.max(mark.number.saturating_sub(WINDOW - 1));
            (from..=mark.number).for_each(|number| flow.forget(number));
            flow.mark(mark.number);
            flow.next = mark.number + 1;
            Order::Next
        } else if flow.next - mark.number > WINDOW {
            Order::Late
        } else if flow.mark(mark.number) {
            Order::Again
        } else {
            Order::Late
        }
    }

    /// Frames that must have been sent: up to each flow's highest number.
    pub(super) fn sent_at_least(&self) -> u64 {
        self.flows.iter().flatten().map(|flow| flow.next).sum()
    }

    /// Takes in what another sink saw of the same trial; no flow comes to both.
    pub(super) fn merge(&mut self, other: Self) {
        self.received += other.received;
        self.bytes += other.bytes;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        let _both_have_the_same_bounds = self.latency.add(&other.latency);
        let spans = [self.span_ns, other.span_ns];
        self.span_ns = spans.into_iter().flatten().reduce(|one, two| (one.0.min(two.0), one.1.max(two.1)));
        if self.flows.len() < other.flows.len() {
            self.flows.resize(other.flows.len(), None);
        }
        for (own, others) in self.flows.iter_mut().zip(other.flows) {
            if own.is_none() {
                *own = others;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Received, duplicates, reordered and the least that was sent, of these numbers of one flow.
    fn check(numbers: impl IntoIterator<Item = u64>) -> (u64, u64, u64, u64) {
        let mut tally = Tally::new(Some(1));
        for number in numbers {
            tally.see(&Mark { trial: 1, flow: 2, number, unix_ns: 100 }, 60, 150);
        }
        (tally.received, tally.duplicates, tally.reordered, tally.sent_at_least())
    }

    #[test]
    fn frames_are_counted_by_their_numbers() {
        assert_eq!(check([]), (0, 0, 0, 0));
        assert_eq!(check(0..10_000), (10_000, 0, 0, 10_000));
        assert_eq!(check([0, 1, 3, 4]), (4, 0, 0, 5), "2 is lost");
        assert_eq!(check([0, 2, 1, 3]), (4, 0, 1, 4), "1 is late");
        assert_eq!(check([0, 1, 1, 2, 0]), (3, 2, 0, 3), "1 and 0 came again");
        assert_eq!(check([0, 5_000, 4_999, 4_999, 1]), (4, 1, 2, 5_001), "far ahead, and far behind");
        assert_eq!(check((0..9_000).chain([8_999, 8_000])), (9_000, 2, 0, 9_000), "the window went round");
        assert_eq!(check([4_095, 8_191, 4_096]), (3, 0, 1, 8_192), "no mark of an older number is taken for it");
    }

    #[test]
    fn flows_are_numbered_each_by_itself_and_other_trials_are_foreign() {
        let mut tally = Tally::new(None);
        for (trial, flow, number) in [(7, 0, 0), (7, 9, 0), (6, 0, 1), (7, 9, 1), (7, 0, 1)] {
            tally.see(&Mark { trial, flow, number, unix_ns: 5 }, 60, 1_005);
        }
        tally.see_foreign();
        assert_eq!((tally.received, tally.reordered, tally.foreign, tally.sent_at_least()), (4, 0, 2, 4));
        assert_eq!((tally.bytes, tally.latency.max()), (4 * 64, 1_000));
    }

    #[test]
    fn sinks_that_share_the_flows_see_together_what_one_would() {
        let see = |tally: &mut Tally, flow, number| tally.see(&Mark { trial: 1, flow, number, unix_ns: 0 }, 60, number);
        let (mut one, mut two) = (Tally::new(Some(1)), Tally::new(Some(1)));
        (0..10).for_each(|number| see(&mut one, 0, number));
        (0..20).for_each(|number| see(&mut two, 3, number));
        one.merge(two);
        assert_eq!((one.received, one.sent_at_least(), one.span_ns), (30, 30, Some((0, 19))));
    }
}

//! `podwire-perf wire`: frames over real NICs, as RFC 2544 has it. Sends numbered UDP frames out of one interface through
//! AF_XDP, counts what comes in on another through AF_XDP or AF_PACKET, and looks for the highest rates.
//!
//! What lies between the two interfaces, and on how many machines, is the user's affair. Nothing of an interface is
//! changed but for the time of the measurement: promiscuous where it receives; with AF_XDP a program that takes test frames
//! there, and in zero-copy mode one that passes everything where it sends.

mod frame;
mod generator;
mod nic;
mod report;
mod session;
mod sink;
mod tally;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use podwire_control::model::Mac;

use crate::format::Format;
use crate::host::Host;
use crate::lab::stop;
use crate::metric::LossPoint;
use crate::pipeline::seconds;
use crate::scenario::PacketSize;
use crate::search::{Search, Trial, ndr_and_pdr};
use frame::FLOWS_MAX;
pub(crate) use generator::Mode;
use report::Rates;
pub(crate) use report::{Outcome, Report};
pub(crate) use session::{Rx, Session, Traffic, Tx};
pub(crate) use sink::Kind;

/// Relative width of the interval that a search ends with.
const SEARCH_WIDTH: f64 = 0.02;
/// Trials that are not counted, so that switches on the way learn and caches fill.
const WARM_UP: Duration = Duration::from_millis(200);
const WARM_UP_RATE: f64 = 1_000.0;

/// What a reader of the figures has to know, below `--help`.
const ABOUT_FIGURES: &str = "\
Frames are sent through AF_XDP: zero-copy, or else copy mode. They are received through AF_XDP where the driver has
zero-copy, with a program that takes test frames only, or else through AF_PACKET, which any interface has, but where one
thread takes what one core can receive, in the order of a million frames a second: beyond that give it --sinks and
--flows. Either way the kernel says what it had to drop for a sink that is too slow. Latency is from before a frame is
queued until the receiving kernel has it (AF_PACKET), or this program (AF_XDP). Never use an interface that you reach
this machine by.";

/// What to send and where to count.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = ABOUT_FIGURES)]
pub(crate) struct Options {
    /// Interface to send from; without one, only what another machine sends is counted
    #[arg(long, value_name = "IF", required_unless_present = "rx_if")]
    pub(crate) tx_if: Option<String>,
    /// Interface to receive on; without one, frames are only sent
    #[arg(long, value_name = "IF")]
    pub(crate) rx_if: Option<String>,
    /// Network namespace of --tx-if, such as /run/netns/a; that of this program when not given
    #[arg(long, value_name = "PATH", requires = "tx_if")]
    pub(crate) tx_netns: Option<PathBuf>,
    /// Network namespace of --rx-if
    #[arg(long, value_name = "PATH", requires = "rx_if")]
    pub(crate) rx_netns: Option<PathBuf>,
    /// Frames a second in all; as many as go when not given. With --search, the highest rate to try
    #[arg(long, value_name = "PPS", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// As many frames as go, which is what happens without --rate
    #[arg(long, conflicts_with = "rate")]
    pub(crate) flood: bool,
    /// Look for the highest rates without loss (NDR) and with at most 0.5 % (PDR); --seconds is for the longest trials
    #[arg(long, requires = "tx_if", requires = "rx_if")]
    pub(crate) search: bool,
    /// Bytes of a frame, FCS counted (RFC 2544: 64 128 256 512 1024 1280 1518), or imix
    #[arg(long, default_value = "64")]
    pub(crate) size: PacketSize,
    /// Seconds of a trial (RFC 2544 asks for 60)
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Flows, by UDP source port, so that queues and cores on the way share them out
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=i64::from(FLOWS_MAX)))]
    pub(crate) flows: u16,
    /// Queues of --tx-if to send on, a thread each
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) queues: u16,
    /// How frames are received
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) sink: Kind,
    /// Threads to receive with; flows are shared out among them
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) sinks: u16,
    /// How frames get to the NIC
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) mode: Mode,
    /// Source address of frames; that of --tx-if when not given
    #[arg(long, value_name = "MAC")]
    pub(crate) src_mac: Option<Mac>,
    /// Where frames go: the router's, or the receiver's; that of --rx-if when not given
    #[arg(long, value_name = "MAC")]
    pub(crate) dst_mac: Option<Mac>,
    /// Source address, of RFC 2544's range
    #[arg(long, value_name = "IP", default_value = "198.18.0.1")]
    pub(crate) src_ip: Ipv4Addr,
    /// Destination address
    #[arg(long, value_name = "IP", default_value = "198.19.0.1")]
    pub(crate) dst_ip: Ipv4Addr,
    /// UDP port that frames go to
    #[arg(long, value_name = "PORT", default_value = "9")]
    pub(crate) dst_port: u16,
    /// CPUs of the sending threads, in turn
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    pub(crate) tx_cpus: Vec<usize>,
    /// CPUs of the receiving threads, in turn
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    pub(crate) rx_cpus: Vec<usize>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1.0..=1e9).contains(&rate) => Ok(rate),
        _ => Err("give a number of frames a second, from 1".to_owned()),
    }
}

impl Options {
    fn open(&self) -> Result<Session> {
        let (queues, mode, cpus) = (self.queues, self.mode, self.tx_cpus.as_slice());
        let tx = self.tx_if.as_deref().map(|device| {
            let netns = self.tx_netns.as_deref();
            Tx { device, netns, queues, mode, cpus }
        });
        let (sink, threads, cpus) = (self.sink, self.sinks, self.rx_cpus.as_slice());
        let rx = self.rx_if.as_deref().map(|device| {
            let netns = self.rx_netns.as_deref();
            Rx { device, netns, sink, threads, nap: None, cpus }
        });
        let Self { size, flows, src_mac, dst_mac, src_ip, dst_ip, dst_port, .. } = *self;
        let traffic = Traffic { size, flows, src_mac, dst_mac, src_ip, dst_ip, dst_port };
        Session::open(tx.as_ref(), rx.as_ref(), &traffic)
    }
}

/// Measures once, or searches.
pub(crate) fn run(options: &Options) -> Result<Report> {
    ensure!(nix::unistd::geteuid().is_root(), "raw frames need root: run podwire-perf wire as root or with sudo");
    ensure!(options.flows >= options.queues, "each of {} queues needs a flow: raise --flows", options.queues);
    stop::watch()?;
    let mut session = options.open()?;
    if session.sends() && session.receives() {
        session.trial(Some(WARM_UP_RATE), WARM_UP)?;
    }
    let mut report = Report::new(Host::this(), options, (session.sending(), session.receiving()));
    if options.search {
        report.search = Some(find_rates(&mut session, options, &mut report.trials)?);
    } else {
        report.trials.push(session.trial(options.rate, options.seconds)?);
    }
    Ok(report)
}

/// The rates of RFC 2544 and RFC 9971. The loss of a trial is of what should have been sent, so that a sender who does
/// not keep up is not the better for it; the highest rate that is tried is what it could do in a flood.
fn find_rates(session: &mut Session, options: &Options, trials: &mut Vec<Outcome>) -> Result<Rates> {
    let flood = session.trial(options.rate, options.seconds)?;
    let rate_max = flood.sent_pps().min(options.rate.unwrap_or(f64::MAX));
    ensure!(flood.received > 0 && rate_max > 0.0, "no frame arrived: check the cable, --dst-mac and the way between");
    let how = Search { rate_max, rate_min: rate_max / 1e3, width: SEARCH_WIDTH, trials_max: 40, verifications: 3 };
    let hint = flood.received_pps();
    trials.push(flood);
    let mut trial = |trial: Trial| {
        let outcome = session.trial(Some(trial.rate), options.seconds.mul_f64(trial.length))?;
        let loss = outcome.loss_of_wanted();
        eprintln!("{:.1} kpps for {:.1} s: {:.4} % lost", trial.rate / 1e3, outcome.seconds, 100.0 * loss);
        trials.push(outcome);
        Ok(loss)
    };
    let (ndr, pdr) = ndr_and_pdr(&how, hint, &mut trial)?;
    let curve = trials.iter().map(|one| LossPoint { kpps: one.wanted_pps() / 1e3, loss: one.loss_of_wanted() });
    let mut curve: Vec<LossPoint> = curve.collect();
    curve.sort_by(|a, b| a.kpps.total_cmp(&b.kpps));
    Ok(Rates::new(ndr, pdr, curve))
}

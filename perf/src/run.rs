//! `podwire-perf run`: builds each scenario's sides, measures them in turn, round by round, and takes it all down again.
//!
//! Interleaving is what makes a ratio worth something on a machine whose speed changes by the minute.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use podwire_vswitch::sys::clock::unix_ms;

use crate::format::Format;
use crate::host::Host;
use crate::lab::{self, CpuTime, program_version, stop};
use crate::metric::Sample;
use crate::report::{Report, SCHEMA, ScenarioReport, SideReport, Skipped};
use crate::scenario::{self, Scenario};
use crate::side::{Built, Side, Site};
use crate::{budget, generate};

/// After a side goes on and before it is measured.
const SETTLE: Duration = Duration::from_millis(50);
/// How long it is looked what others do.
const LISTEN: Duration = Duration::from_millis(500);

/// What to run, and where the report goes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Scenarios to run (TOML); the standard set when not given
    pub(crate) file: Option<PathBuf>,
    /// Rounds of each scenario, instead of what it says
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: Option<u16>,
    /// Only these scenarios
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Also measure what each stage costs in memory, as `podwire-perf budget`; the whole standard set does
    #[arg(long)]
    pub(crate) budget: bool,
    /// Where podwired is; the folder of this program when not given
    #[arg(long, value_name = "FOLDER")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Write the result to this file too, for `podwire-perf compare`
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a report with charts to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

impl Options {
    /// Whether the stages are measured too: once, after everything else.
    fn has_budget(&self) -> bool {
        self.budget || (self.file.is_none() && self.only.is_empty())
    }
}

/// Runs everything that was asked for. A scenario that fails is in the report; a signal ends it all.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let mut scenarios = scenario::only(scenario::read(options.file.as_deref())?, &options.only)?;
    for scenario in &mut scenarios {
        scenario.rounds = options.rounds.map_or(scenario.rounds, usize::from);
    }
    lab::require_root()?;
    stop::watch()?;
    let bin_dir = bin_dir(options)?;
    let mut report = Report {
        schema: SCHEMA,
        started_unix_ms: unix_ms(),
        host: Host::this(),
        congestion_control: None,
        versions: versions(&bin_dir),
        scenarios: Vec::new(),
        budget: None,
    };
    let mut progress = Progress::of(&scenarios);
    for scenario in scenarios {
        let mut done = ScenarioReport::empty(scenario);
        match measure(&mut done, &bin_dir, &mut progress, &mut report.congestion_control) {
            Ok(()) => {}
            Err(error) if error.is::<stop::Stopped>() => return Err(error),
            Err(error) => {
                eprintln!("podwire-perf: {} failed: {error:#}", done.scenario.name);
                done.failed = Some(format!("{error:#}"));
            }
        }
        done.judge();
        report.scenarios.push(done);
    }
    if options.has_budget() {
        eprintln!("budget: what each stage costs, in memory");
        report.budget = Some(budget::run(&budget::Options::default())?);
    }
    Ok(report)
}

fn bin_dir(options: &Options) -> Result<PathBuf> {
    if let Some(folder) = &options.bin_dir {
        return folder.canonicalize().with_context(|| format!("--bin-dir {}", folder.display()));
    }
    let program = std::env::current_exe().context("this program does not know where it is; say --bin-dir")?;
    Ok(program.parent().map(Path::to_owned).unwrap_or_default())
}

fn versions(bin_dir: &Path) -> Vec<(String, String)> {
    let ours = ("podwire-perf".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let podwired = bin_dir.join("podwired").display().to_string();
    let others = [("podwired", podwired.as_str()), ("ovs", "ovs-vswitchd")];
    let asked = others.into_iter().filter_map(|(name, program)| Some((name.to_owned(), program_version(program)?)));
    std::iter::once(ours).chain(asked).collect()
}

/// Measures one scenario into its report.
fn measure(
    report: &mut ScenarioReport,
    bin_dir: &Path,
    progress: &mut Progress,
    congestion_control: &mut Option<String>,
) -> Result<()> {
    let scenario = report.scenario.clone();
    progress.scenario(&scenario);
    let site = Site { topology: scenario.topology, wire: scenario.wire.unwrap_or_default(), bin_dir };
    let mut sides = Vec::new();
    for peer in &scenario.sides {
        stop::check()?;
        match Side::build(peer, &site)? {
            Built::Skipped(why) => {
                eprintln!("podwire-perf: {peer} is skipped: {why}");
                progress.skip(scenario.rounds);
                report.skipped.push(Skipped { side: peer.clone(), why });
            }
            Built::Ready(side) => {
                report.sides.push(SideReport::new(peer.clone(), side.offloads()?));
                if congestion_control.is_none() {
                    *congestion_control = side.congestion_control()?;
                }
                sides.push(side);
            }
        }
    }
    report.others_cores = Some(others_cores()?);
    if let Some(why) = report.disturbed() {
        eprintln!("podwire-perf: {}: {why}", scenario.name);
    }
    for round in 1..=scenario.rounds {
        for (side, told) in sides.iter_mut().zip(&mut report.sides) {
            let sample = once(side, &scenario).with_context(|| told.side.to_string())?;
            progress.measured(&scenario, round, &told.side.to_string(), &sample);
            told.add(&sample);
        }
    }
    Ok(())
}

/// Cores in use while every side is paused.
fn others_cores() -> Result<f64> {
    let before = CpuTime::now(&[]);
    stop::sleep(LISTEN)?;
    Ok(CpuTime::now(&[]).since(before).system_s / LISTEN.as_secs_f64())
}

/// One measurement of a side that is paused before and after.
fn once(side: &mut Side, scenario: &Scenario) -> Result<Sample> {
    side.resume()?;
    let sample = stop::sleep(SETTLE).and_then(|()| generate::measure(scenario, &side.path()));
    side.pause();
    sample
}

/// What is said on standard error while it runs.
struct Progress {
    done: usize,
    all: usize,
}

impl Progress {
    fn of(scenarios: &[Scenario]) -> Self {
        Self { done: 0, all: scenarios.iter().map(|scenario| scenario.rounds * scenario.sides.len()).sum() }
    }

    fn scenario(&self, scenario: &Scenario) {
        eprintln!("{}: {}, {}", scenario.name, scenario.place(), scenario.measure.describe());
    }

    fn skip(&mut self, measurements: usize) {
        self.all -= measurements;
    }

    fn measured(&mut self, scenario: &Scenario, round: usize, side: &str, sample: &Sample) {
        self.done += 1;
        let figure = sample.figures.first().map(|(metric, value)| format!("{value:.2} {}", metric.title()));
        let (name, rounds) = (&scenario.name, scenario.rounds);
        eprintln!(
            "[{:>3}/{}] {name} round {round}/{rounds} {side}: {}",
            self.done,
            self.all,
            figure.unwrap_or_default()
        );
    }
}

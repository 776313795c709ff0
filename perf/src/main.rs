//! podwire-perf: measures podwire on this machine.
//!
//! `pipeline` runs the real pipeline in memory, without devices or privileges, and `budget` its stages one by one. `run`
//! builds pods, nodes and peers in network namespaces and measures them side by side; `compare` judges two such runs.
//! `wire` sends and counts frames on interfaces that are there, such as real NICs.
#![deny(unsafe_code)]

mod allocator;
mod budget;
mod compare;
mod format;
mod generate;
mod host;
mod lab;
mod metric;
mod pace;
mod pipeline;
mod report;
mod run;
mod scenario;
mod search;
mod side;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// Measures podwire.
#[derive(Debug, Parser)]
#[command(name = "podwire-perf", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mpps, ns and allocations a frame of the in-memory pipeline at 64 bytes
    Pipeline(pipeline::Options),
    /// What each stage costs a packet, in memory, and the cores that 40 and 200 Gb/s need of it
    Budget(budget::Options),
    /// Throughput, latency and loss beside the kernel and other switches, in network namespaces (root)
    Run(run::Options),
    /// How the ratios of two runs differ
    Compare(compare::Options),
    /// Frames over real NICs: rate, loss, order and latency, and the highest rates (root)
    Wire(wire::Options),
}

fn main() -> ExitCode {
    let faults = match Args::parse().command {
        Command::Pipeline(options) => pipeline(&options),
        Command::Budget(options) => budget(&options),
        Command::Run(options) => run(&options),
        Command::Compare(options) => compare(&options),
        Command::Wire(options) => wire(&options),
    };
    match faults {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            faults.iter().for_each(|fault| eprintln!("podwire-perf: {fault}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("podwire-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What must not be, in sentences.
type Faults = Vec<String>;

fn pipeline(options: &pipeline::Options) -> Result<Faults> {
    let report = pipeline::run(options)?;
    show(&report.render(options.output));
    Ok(report.faults())
}

/// A goal that is missed is said and is no fault: the machine may be slow.
fn budget(options: &budget::Options) -> Result<Faults> {
    let report = budget::run(options)?;
    show(&report.render(options.output));
    Ok(Faults::new())
}

fn run(options: &run::Options) -> Result<Faults> {
    let report = run::run(options)?;
    show(&report.render(options.output)?);
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    if let Some(path) = &options.html {
        report.write_html(path)?;
    }
    Ok(report.failed().iter().map(|name| format!("{name} failed; its figures are not whole")).collect())
}

fn compare(options: &compare::Options) -> Result<Faults> {
    let comparison = compare::compare(options)?;
    show(&comparison.render());
    Ok(options.gate.map(|gate| comparison.faults(gate)).unwrap_or_default())
}

fn wire(options: &wire::Options) -> Result<Faults> {
    show(&wire::run(options)?.render(options.output));
    Ok(Faults::new())
}

#[allow(clippy::print_stdout, reason = "the report is what this program is for")]
fn show(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<pipeline::Options, clap::Error> {
        match Args::try_parse_from(line.split(' '))?.command {
            Command::Pipeline(options) => Ok(options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed_and_has_the_defaults_of_the_issue() {
        Args::command().debug_assert();
        let options = parse("podwire-perf pipeline").unwrap();
        assert_eq!(options.flows, [1, 1_000, 100_000]);
        assert_eq!(options.scenarios().len(), 5);
        assert_eq!(options.output, format::Format::Table);
    }

    #[test]
    fn scenarios_and_flows_can_be_chosen() {
        let options = parse("podwire-perf pipeline --scenario l2,decap --flows 7 --seconds 0.5 -o json").unwrap();
        assert_eq!(options.flows, [7]);
        assert_eq!(options.scenarios(), [pipeline::Scenario::L2, pipeline::Scenario::Decap]);
        assert_eq!(options.output, format::Format::Json);
    }

    #[test]
    fn what_can_not_be_measured_is_refused() {
        for bad in [
            "--flows 0",
            "--seconds 0",
            "--seconds x",
            "--scenario l4",
            "--tables 100001",
            "--flow-cache 4194305",
            "-o xml",
        ] {
            assert!(parse(&format!("podwire-perf pipeline {bad}")).is_err(), "{bad}");
        }
        for bad in [
            "budget --seconds 0",
            "budget --flows 0",
            "run --rounds 0",
            "run -o xml",
            "compare a.json",
            "compare a b --gate 101",
            "compare a b --gate x",
        ] {
            assert!(Args::try_parse_from(format!("podwire-perf {bad}").split(' ')).is_err(), "{bad}");
        }
        for good in [
            "budget --seconds 0.1 -o json",
            "run --budget",
            "run",
            "run x.toml --rounds 3 --only a,b --html a.html",
            "compare a b --gate 10",
        ] {
            assert!(Args::try_parse_from(format!("podwire-perf {good}").split(' ')).is_ok(), "{good}");
        }
    }
}

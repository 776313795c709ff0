//! podwire-perf: measures what the engine can do on this machine.
//!
//! `pipeline` runs the real pipeline in memory, without devices or privileges. Measuring with devices and kernels is
//! not here yet.
#![deny(unsafe_code)]

mod allocator;
mod host;
mod pipeline;
mod report;

use std::process::ExitCode;

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
}

fn main() -> ExitCode {
    let Command::Pipeline(options) = Args::parse().command;
    match pipeline::run(&options) {
        Ok(report) => {
            show(&report.render(options.output));
            match report.faults() {
                faults if faults.is_empty() => ExitCode::SUCCESS,
                faults => {
                    faults.iter().for_each(|fault| eprintln!("podwire-perf: {fault}"));
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("podwire-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
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
        let Command::Pipeline(options) = Args::try_parse_from(line.split(' '))?.command;
        Ok(options)
    }

    #[test]
    fn the_command_line_is_well_formed_and_has_the_defaults_of_the_issue() {
        Args::command().debug_assert();
        let options = parse("podwire-perf pipeline").unwrap();
        assert_eq!(options.flows, [1, 1_000, 100_000]);
        assert_eq!(options.scenarios().len(), 5);
        assert_eq!(options.output, report::Format::Table);
    }

    #[test]
    fn scenarios_and_flows_can_be_chosen() {
        let options = parse("podwire-perf pipeline --scenario l2,decap --flows 7 --seconds 0.5 -o json").unwrap();
        assert_eq!(options.flows, [7]);
        assert_eq!(options.scenarios(), [pipeline::Scenario::L2, pipeline::Scenario::Decap]);
        assert_eq!(options.output, report::Format::Json);
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
    }
}

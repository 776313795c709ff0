//! The command line `podwire`; all of it is in `podwire_control::cli`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let exit = runtime.block_on(podwire_control::cli::run(std::env::args_os(), &mut out, &mut err));
    Ok(exit.into())
}

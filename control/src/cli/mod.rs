//! The command line `podwire`: reads arguments, makes one call or a few, and prints a table or JSON.
//!
//! Left out: everything else. The daemon decides what is right; the CLI only says it.

mod args;
mod ask;
mod attachment;
mod ipam;
mod object;
mod observe;
mod output;
mod status;
mod tables;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::client::{Client, ClientError};
use crate::intent::IntentError;
use args::{Args, Verb};
use output::Output;

/// Time for connecting and for each call.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why the command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("file {file}: {error}")]
    Intent { file: String, error: IntentError },
    #[error("{0}")]
    Usage(clap::Error),
    #[error("{0}")]
    Said(String),
    /// Writing failed; a closed pipe is how a reader says that it has seen enough.
    #[error("cannot write the output: {0}; look at where it goes")]
    Output(#[from] io::Error),
}

/// What went wrong with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Nothing.
    Done,
    /// It was refused, or the daemon can not be reached.
    Refused,
    /// It was not understood.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Usage => 2,
        })
    }
}

/// Runs the command that `args` (the program's name first) say, and writes what it says.
pub async fn run(
    args: impl IntoIterator<Item = OsString>,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
) -> Exit {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            let _ = write!(err, "{}", error.render()); // nowhere left to complain
            return Exit::Usage;
        }
        Err(help) => {
            let _ = write!(out, "{}", help.render()); // a closed pipe has seen enough
            return Exit::Done;
        }
    };
    match act(args, out).await {
        Ok(()) => Exit::Done,
        Err(Failure::Usage(error)) => {
            let _ = write!(err, "{}", error.render()); // nowhere left to complain
            Exit::Usage
        }
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(failure) => {
            for sentence in failure.sentences() {
                let _ = writeln!(err, "error: {sentence}"); // nowhere left to complain
            }
            Exit::Refused
        }
    }
}

impl Failure {
    fn sentences(&self) -> Vec<String> {
        match self {
            Self::Client(error) => error.sentences(),
            Self::Intent { file, error: IntentError::Refused(refused) } => {
                refused.iter().map(|refusal| format!("file {file}: {refusal}")).collect()
            }
            other => vec![other.to_string()],
        }
    }
}

async fn act(args: Args, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let mut output = Output::new(args.output, out);
    if let Verb::Completions { shell } = args.verb {
        return output.completions(shell, &mut Args::command());
    }
    let statement = args.verb.statement()?;
    let client = Client::connect(&args.socket, DEADLINE).await?;
    if let Some(statement) = statement {
        return statement.make(&client, &mut output).await;
    }
    ask::ask(args.verb, &client, &mut output).await
}

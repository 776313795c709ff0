//! Running a command to its end, and the sentence that a failed one deserves.

use std::process::{Command, Output, Stdio};

/// What a command printed and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Whether it exited with 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// Standard output of a command that must succeed.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    #[track_caller]
    pub fn expect(self, why: &str) -> String {
        assert!(self.ok(), "{why}: `{}` ended with {:?}\n{}{}", self.line, self.code, self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs `program` without standard input and waits for its end.
///
/// # Panics
/// When it cannot be started at all.
#[track_caller]
pub fn run<S: AsRef<str>>(program: &str, arguments: &[S]) -> Outcome {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let line = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(&arguments).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } =
        output.unwrap_or_else(|error| panic!("`{line}` did not start ({error}); run `make deps`"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome { line, code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// Runs a command line whose words hold no blanks, such as `ip link set eth0 up`, and expects success.
///
/// # Panics
/// When the line is empty, or the command fails.
#[track_caller]
pub fn must(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, arguments) = words.split_first().expect("a command line has a first word");
    run(program, arguments).expect("a step of the test's fixture failed")
}

//! Running a program to its end, and the sentence that a failed or missing one deserves.

use std::io;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program is not installed.
#[derive(Debug, thiserror::Error)]
#[error("{program} is not installed: it is in Debian's package {package}")]
pub(crate) struct Missing {
    pub(crate) program: String,
    pub(crate) package: &'static str,
}

impl Missing {
    pub(crate) fn new(program: &str) -> Self {
        let package = match program {
            "ip" | "bridge" => "iproute2",
            "ethtool" => "ethtool",
            name if name.starts_with("ovs") => "openvswitch-switch",
            _ => "of that name",
        };
        Self { program: program.to_owned(), package }
    }
}

/// Runs a command line whose words hold no blanks, such as `ip link set eth0 up`; its standard output.
pub(crate) fn must(line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, arguments) = words.split_first().context("an empty command line")?;
    output(Command::new(program).args(arguments), line)
}

/// Runs a command to its end; `line` is for the message when it fails.
pub(crate) fn output(command: &mut Command, line: &str) -> Result<String> {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Missing::new(&command.get_program().to_string_lossy()).into());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot start `{line}`")),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first line that `PROGRAM --version` prints; none when there is no such program.
pub(crate) fn program_version(program: &str) -> Option<String> {
    let text = output(Command::new(program).arg("--version"), program).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = must("ovs-vsctl-that-is-not-there --version").unwrap_err();
        assert_eq!(
            error.downcast_ref::<Missing>().unwrap().to_string(),
            "ovs-vsctl-that-is-not-there is not installed: it is in Debian's package openvswitch-switch"
        );
    }

    #[test]
    fn a_failed_command_says_what_it_was_and_what_it_said() {
        let error = must("cat /nowhere/at/all").unwrap_err().to_string();
        assert!(error.starts_with("`cat /nowhere/at/all` failed") && error.contains("No such file"), "{error}");
    }
}

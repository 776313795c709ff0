//! Another plugin that gives addresses (CNI 1.1.0, section 4): it is run with the same environment and the same
//! configuration, and its error is the runtime's to know.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};

use ipnet::IpNet;
use serde_json::Value;

use crate::environment::{Command, invalid};
use crate::failure::{Code, Failure};
use crate::field::Field;
use crate::result::{CniResult, Object};

/// An IPAM plugin, and what it is asked with.
#[derive(Debug)]
pub(crate) struct Ipam<'a> {
    name: &'a str,
    program: PathBuf,
    request: &'a [u8],
}

impl<'a> Ipam<'a> {
    /// Looks a plugin up in `CNI_PATH`.
    pub(crate) fn find(name: &'a str, path: Option<&str>, request: &'a [u8]) -> Result<Self, Failure> {
        let remedy = "the runtime has to set it to the directories of plugins";
        let path = path.ok_or_else(|| invalid("CNI_PATH is not set", remedy))?;
        let found = env::split_paths(path).map(|dir| dir.join(name)).find(|program| program.is_file());
        let missing = || {
            let msg = format!("there is no IPAM plugin {name} in {path}");
            Failure::new(Code::IPAM, msg, "install it, or leave `ipam` out of the network configuration")
        };
        Ok(Self { name, program: found.ok_or_else(missing)?, request })
    }

    /// Has addresses given; those, and what it says of name servers. One that fails may have given some.
    pub(crate) fn add(&self) -> Result<(Vec<IpNet>, Object), Failure> {
        let answer = self.run(Command::Add)?;
        let result = CniResult::read(&Field::root(&answer)).map_err(|failure| self.senseless(&failure.to_string()))?;
        match result.addresses() {
            none if none.is_empty() => Err(self.senseless("it gave no address")),
            addresses => Ok((addresses, result.dns())),
        }
    }

    /// Has what an ADD gave taken back, since something failed.
    pub(crate) fn give_back(&self, failure: Failure) -> Failure {
        match self.tell(Command::Del) {
            Ok(()) => failure,
            Err(kept) => failure.and(&format!("and its addresses could not be given back: {kept}")),
        }
    }

    /// Runs a command whose answer does not matter.
    pub(crate) fn tell(&self, command: Command) -> Result<(), Failure> {
        self.run(command).map(|_| ())
    }

    /// What it says; its log lines go where ours do.
    fn run(&self, command: Command) -> Result<Value, Failure> {
        let failed = |error: std::io::Error| {
            let msg = format!("IPAM plugin {} can not be run: {error}", self.program.display());
            Failure::new(Code::IPAM, msg, "check that it is an executable file")
        };
        let mut child = process::Command::new(&self.program)
            .env("CNI_COMMAND", command.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it has its reasons, and says them.
            let _ = stdin.write_all(self.request);
        }
        let output = child.wait_with_output().map_err(failed)?;
        let answer: Option<Value> = match output.stdout.trim_ascii() {
            [] => Some(Value::Null),
            text => serde_json::from_slice(text).ok(),
        };
        match answer {
            Some(answer) if output.status.success() => Ok(answer),
            Some(answer) if answer["code"].is_u64() => Err(self.passed_on(&answer)),
            _ => Err(self.senseless(&format!("it ended with {} and no error object", output.status))),
        }
    }

    /// Its own error, with its code.
    fn passed_on(&self, answer: &Value) -> Failure {
        let text = |key: &str| answer[key].as_str().unwrap_or_default();
        let code = Code(answer["code"].as_u64().unwrap_or(Code::IPAM.0));
        Failure::new(code, format!("IPAM plugin {}: {}", self.name, text("msg")), text("details"))
    }

    fn senseless(&self, why: &str) -> Failure {
        let msg = format!("IPAM plugin {} makes no sense: {why}", self.name);
        Failure::new(
            Code::IPAM,
            msg,
            format!("look at the log of the runtime; run {} by hand", Path::display(&self.program)),
        )
    }
}

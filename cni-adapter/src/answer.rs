//! The answer to one request, as a pure function of the command and the bytes on standard input.

use serde::Deserialize;
use serde_json::{Value, json};

/// Versions of the specification whose requests are understood, oldest first.
pub(crate) const SUPPORTED_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What is spoken to a runtime that names no version that is understood.
const NEWEST_VERSION: &str = SUPPORTED_VERSIONS[3];

/// What a runtime is told until the plugin wires pods.
const REMEDY: &str = "pods are wired by `podwire port add` until the plugin lands";

/// A JSON object for standard output, with exit code 0.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Answer(pub(crate) Value);

/// Error codes of the specification (CNI 1.1.0, "Error"); from 100 on they are the plugin's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Code {
    /// The request's version is not supported.
    IncompatibleVersion = 1,
    /// An environment variable is missing or wrong; the message names it.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The request is no JSON, or of another shape.
    Undecodable = 6,
    /// STATUS: an ADD could not be served.
    NotAvailable = 50,
    /// Not built yet.
    NotImplemented = 100,
}

/// An error object for standard output, with another exit code than 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// Version the object is written in.
    pub(crate) version: String,
    /// What kind of failure.
    pub(crate) code: Code,
    /// One short sentence.
    pub(crate) msg: String,
    /// What to do.
    pub(crate) details: String,
}

impl Failure {
    /// Standard input can not be read.
    pub(crate) fn unreadable(error: &std::io::Error) -> Self {
        let details = "the runtime has to write the network configuration to standard input";
        Self::new(NEWEST_VERSION, Code::Io, format!("cannot read the request: {error}"), details)
    }

    fn new(version: &str, code: Code, msg: String, details: &str) -> Self {
        Self { version: version.to_owned(), code, msg, details: details.to_owned() }
    }

    /// The object as the specification has it.
    pub(crate) fn json(&self) -> Value {
        json!({"cniVersion": self.version, "code": self.code as u32, "msg": self.msg, "details": self.details})
    }
}

/// What is read of a request; the rest is for the commands to come.
#[derive(Deserialize)]
struct Request {
    #[serde(rename = "cniVersion")]
    version: Option<String>,
}

/// Answers the command `CNI_COMMAND` names.
///
/// # Errors
/// [`Failure`], in the specification's form.
pub(crate) fn answer(command: Option<&str>, request: &[u8]) -> Result<Answer, Failure> {
    let invalid = |msg: String| {
        let details = "set CNI_COMMAND to VERSION; ".to_owned() + REMEDY;
        Failure::new(NEWEST_VERSION, Code::InvalidEnvironment, msg, &details)
    };
    let command =
        command.filter(|command| !command.is_empty()).ok_or_else(|| invalid("CNI_COMMAND is not set".into()))?;
    let version = version_of(command, request)?;
    match command {
        "VERSION" => Ok(Answer(json!({"cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS}))),
        _ if !SUPPORTED_VERSIONS.contains(&version.as_str()) => Err(Failure::new(
            NEWEST_VERSION,
            Code::IncompatibleVersion,
            format!("cniVersion {version} is not supported"),
            &format!("write one of {} into the network configuration", SUPPORTED_VERSIONS.join(", ")),
        )),
        "STATUS" => Err(Failure::new(&version, Code::NotAvailable, "podwire-cni can not serve ADD yet".into(), REMEDY)),
        "ADD" | "DEL" | "CHECK" | "GC" => {
            let msg = format!("podwire-cni does not do {command} yet");
            Err(Failure::new(&version, Code::NotImplemented, msg, REMEDY))
        }
        other => Err(Failure { version, ..invalid(format!("CNI_COMMAND is {other:?}, which is no command")) }),
    }
}

/// The version the request is written in. A `VERSION` typed by hand may come with nothing on standard input.
fn version_of(command: &str, request: &[u8]) -> Result<String, Failure> {
    if command == "VERSION" && request.trim_ascii().is_empty() {
        return Ok(NEWEST_VERSION.to_owned());
    }
    let details = "the runtime has to write a JSON object with cniVersion to standard input";
    let undecodable = |why: String| {
        Failure::new(NEWEST_VERSION, Code::Undecodable, format!("cannot decode the request: {why}"), details)
    };
    let request: Request = serde_json::from_slice(request).map_err(|error| undecodable(error.to_string()))?;
    request.version.ok_or_else(|| undecodable("cniVersion is missing".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_echoes_the_requests_version_and_lists_the_supported_ones() {
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.1.0", "9.0.0"] {
            let request = format!("{{\"cniVersion\": \"{version}\", \"name\": \"net\"}}");
            let expected = json!({"cniVersion": version, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]});
            assert_eq!(answer(Some("VERSION"), request.as_bytes()), Ok(Answer(expected)));
        }
        let Answer(by_hand) = answer(Some("VERSION"), b"\n").unwrap();
        assert_eq!(by_hand["cniVersion"], "1.1.0");
    }

    #[test]
    fn everything_else_fails_with_the_code_the_specification_gives_it() {
        let request = b"{\"cniVersion\": \"1.0.0\", \"name\": \"net\", \"type\": \"podwire-cni\"}";
        let newest = b"{\"cniVersion\": \"2.0.0\"}";
        for (command, request, version, code, words) in [
            (Some("ADD"), &request[..], "1.0.0", 100, "ADD"),
            (Some("DEL"), request, "1.0.0", 100, "DEL"),
            (Some("CHECK"), request, "1.0.0", 100, "CHECK"),
            (Some("GC"), request, "1.0.0", 100, "GC"),
            (Some("STATUS"), request, "1.0.0", 50, "ADD"),
            (Some("add"), request, "1.0.0", 4, "CNI_COMMAND is \"add\""),
            (Some(""), request, "1.1.0", 4, "CNI_COMMAND is not set"),
            (None, request, "1.1.0", 4, "CNI_COMMAND is not set"),
            (Some("ADD"), newest, "1.1.0", 1, "2.0.0"),
            (Some("ADD"), b"", "1.1.0", 6, "decode"),
            (Some("ADD"), b"{}", "1.1.0", 6, "cniVersion is missing"),
            (Some("VERSION"), b"{", "1.1.0", 6, "decode"),
            (Some("VERSION"), b"{\"cniVersion\": 1}", "1.1.0", 6, "decode"),
            (Some("VERSION"), b"\xff\xfe", "1.1.0", 6, "decode"),
        ] {
            let json = answer(command, request).unwrap_err().json();
            assert_eq!((&json["cniVersion"], &json["code"]), (&json!(version), &json!(code)), "{command:?}: {json}");
            assert!(json["msg"].as_str().unwrap().contains(words), "{words} in {json}");
            assert!(!json["details"].as_str().unwrap().is_empty(), "what to do: {json}");
        }
    }

    #[test]
    fn until_the_plugin_lands_its_refusals_say_how_pods_are_wired() {
        for command in ["ADD", "STATUS", "NONSENSE"] {
            let failure = answer(Some(command), b"{\"cniVersion\": \"1.1.0\"}").unwrap_err();
            assert!(failure.details.contains("podwire port add"), "{failure:?}");
        }
    }
}

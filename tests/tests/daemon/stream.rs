//! A steady stream of echo requests between two pods, and how many went unanswered.

use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podwire_tests::Pod;

/// A running ping, one request every 5 ms.
pub(crate) struct Stream {
    ping: Child,
}

impl Stream {
    pub(crate) fn start(from: &Pod, to: &Pod) -> Self {
        let mut command = from.netns.command("ping".as_ref());
        command.args(["-n", "-q", "-i", "0.005", &to.v4().to_string()]);
        let ping = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ping starts");
        Self { ping }
    }

    /// Ends it: requests sent, and answers missing but for one that may be under way.
    pub(crate) fn end(self) -> (u32, u32) {
        kill(Pid::from_raw(self.ping.id().cast_signed()), Signal::SIGINT).unwrap();
        let output = self.ping.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary = text.lines().find(|line| line.contains("packets transmitted")).expect("ping sums up");
        let number = |word: &str| -> u32 {
            let part = summary.split(", ").find(|part| part.contains(word)).unwrap();
            part.split_whitespace().next().unwrap().parse().unwrap()
        };
        let (sent, received) = (number("transmitted"), number("received"));
        (sent, (sent - received).saturating_sub(1))
    }
}

//! The program `nft`, which turns rules in words into the kernel's, all of them or none.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long it may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Where it is looked for beside PATH, which services are often given without these.
const SBIN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The rules are not in force; those of before are.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// No such program.
    #[error("there is no program nft in PATH; install nftables")]
    Missing,
    /// It can not be run.
    #[error("cannot run {}: {source}; check the program, and podwired's limit of processes", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It says no.
    #[error(
        "nft refuses the rules: {said}; podwired needs CAP_NET_ADMIN, and a kernel with nftables, its NAT and its fib expression"
    )]
    Refused {
        /// Its own words.
        said: String,
    },
    /// It says nothing.
    #[error("nft did not end within {} s and was killed; see what else holds the node's rules", ANSWERS_WITHIN.as_secs())]
    Stuck,
}

/// Hands rules to the kernel in the calling thread's network namespace.
///
/// # Errors
/// [`NftError`].
pub fn apply(rules: &str) -> Result<(), NftError> {
    let program = find(&env::var_os("PATH").unwrap_or_default(), &SBIN).ok_or(NftError::Missing)?;
    run(&program, rules, ANSWERS_WITHIN)
}

/// The program, by an absolute path.
fn find(path: &OsStr, beside: &[&str]) -> Option<PathBuf> {
    let listed = env::split_paths(path).filter(|folder| folder.is_absolute());
    listed.chain(beside.iter().map(PathBuf::from)).map(|folder| folder.join("nft")).find(|program| program.is_file())
}

fn run(program: &Path, rules: &str, limit: Duration) -> Result<(), NftError> {
    let failed = |source| NftError::Run { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let said = converse(&mut child, rules, limit);
    if !matches!(said, Ok(Some(_))) {
        // It may have ended by now; then there is nothing to kill.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    match said.map_err(failed)? {
        None => Err(NftError::Stuck),
        Some(_) if status.success() => Ok(()),
        Some(said) => Err(NftError::Refused { said: first_words(&said) }),
    }
}

/// What the program said when it had the rules; none when it has not closed its standard error in time. The threads are
/// not waited for: a program that is killed ends both.
fn converse(child: &mut Child, rules: &str, limit: Duration) -> io::Result<Option<String>> {
    let (Some(mut stdin), Some(mut stderr)) = (child.stdin.take(), child.stderr.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let rules = rules.to_owned();
    let (ended, said) = mpsc::channel();
    thread::Builder::new().name("nft-rules".into()).spawn(move || {
        // One that ends without reading says why.
        let _ = stdin.write_all(rules.as_bytes());
    })?;
    thread::Builder::new().name("nft-words".into()).spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        let _ = ended.send(String::from_utf8_lossy(&bytes).into_owned());
    })?;
    Ok(said.recv_timeout(limit).ok())
}

/// The first line that says something: `nft` repeats the rule below it, and underlines.
fn first_words(said: &str) -> String {
    said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gave no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::has_table;
    use crate::sys::netns::testing::TestNetns;

    #[test]
    fn rules_are_taken_whole_or_refused_in_its_own_words() {
        let netns = TestNetns::new();
        netns.enter(|| {
            apply("table inet own {\n}\n").unwrap();
            assert!(has_table("own").unwrap());
            let refusal = apply("delete table inet own\nadd rule inet nowhere a accept\n").unwrap_err().to_string();
            assert!(refusal.contains("No such file or directory") && refusal.contains("CAP_NET_ADMIN"), "{refusal}");
            assert!(has_table("own").unwrap(), "the first line is taken back");
        });
    }

    #[test]
    fn the_program_is_the_first_of_path_or_stands_where_services_do_not_look() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("nft");
        std::fs::write(&own, "").unwrap();
        let place = folder.path().to_str().unwrap();
        assert_eq!(find(format!("/nowhere:{place}:/usr/sbin").as_ref(), &[]), Some(own.clone()));
        assert_eq!(find("/nowhere".as_ref(), &[place]), Some(own));
        assert_eq!(find("/nowhere:.".as_ref(), &["/nowhere"]), None);
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_one_that_does_not_read_is_heard() {
        // With these arguments a shell takes commands where nft takes rules.
        let shell = |commands: &str, limit| {
            run(Path::new("/bin/sh"), &format!("{commands}\n{}", "#\n".repeat(200_000)), limit).unwrap_err().to_string()
        };
        let stuck = shell("exec sleep 60", Duration::from_millis(100));
        assert!(stuck.contains("was killed"), "{stuck}");
        let refused = shell("echo >&2; echo '  no, since: reasons' >&2; exit 1", ANSWERS_WITHIN);
        assert!(refused.contains("nft refuses the rules: no, since: reasons;"), "{refused}");
        let missing = run(Path::new("/nowhere/nft"), "", ANSWERS_WITHIN).unwrap_err().to_string();
        assert!(missing.contains("cannot run /nowhere/nft: No such file"), "{missing}");
    }
}

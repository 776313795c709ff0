//! What a runtime says through environment variables (CNI 1.1.0, "Parameters").

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use podwire_control::model::{AttachmentKey, IFNAME_BYTES_MAX, Mac, PodName, read};

use crate::failure::{Code, Failure};

/// A command on which the specification wants an answer, `VERSION` excepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
}

impl Command {
    const ALL: [Self; 5] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }
}

/// The variables, each as it was given; one that is empty is not given.
#[derive(Clone, Default, Debug)]
pub(crate) struct Environment {
    pub(crate) command: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) ifname: Option<String>,
    pub(crate) args: Option<String>,
    pub(crate) path: Option<String>,
}

/// What `CNI_ARGS` may hold for us.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Args {
    pub(crate) pod: Option<PodName>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
}

pub(crate) fn invalid(msg: impl Into<String>, remedy: &str) -> Failure {
    Failure::new(Code::INVALID_ENVIRONMENT, msg, remedy)
}

impl Environment {
    /// The process' own.
    pub(crate) fn of_process() -> Result<Self, Failure> {
        let variable = |name: &str| match std::env::var(name) {
            Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(text)) => {
                Err(invalid(format!("{name} is {}, which is no UTF-8", text.display()), "give it as UTF-8"))
            }
        };
        Ok(Self {
            command: variable("CNI_COMMAND")?,
            container: variable("CNI_CONTAINERID")?,
            netns: variable("CNI_NETNS")?.map(PathBuf::from),
            ifname: variable("CNI_IFNAME")?,
            args: variable("CNI_ARGS")?,
            path: variable("CNI_PATH")?,
        })
    }

    /// The command; none for `VERSION`.
    pub(crate) fn command(&self) -> Result<Option<Command>, Failure> {
        let remedy = "the runtime has to set it to ADD, DEL, CHECK, GC, STATUS or VERSION";
        let name = self.command.as_deref().ok_or_else(|| invalid("CNI_COMMAND is not set", remedy))?;
        let command = Command::ALL.into_iter().find(|command| command.name() == name);
        if command.is_none() && name != "VERSION" {
            return Err(invalid(format!("CNI_COMMAND is {name:?}, which is no command"), remedy));
        }
        Ok(command)
    }

    /// The attachment that is spoken of.
    pub(crate) fn key(&self) -> Result<AttachmentKey, Failure> {
        let container = needed("CNI_CONTAINERID", self.container.as_ref())?;
        let container = container
            .parse()
            .map_err(|error| invalid(format!("CNI_CONTAINERID: {error}"), "the runtime has to give a plain id"))?;
        let ifname = needed("CNI_IFNAME", self.ifname.as_ref())?;
        if !is_ifname(ifname) {
            let remedy = "use 1 to 15 bytes without '/', ':' and white space, such as eth0";
            return Err(invalid(format!("CNI_IFNAME is {ifname:?}, which is no interface name"), remedy));
        }
        Ok(AttachmentKey { container, ifname: ifname.clone() })
    }

    /// The namespace, where the command needs one.
    pub(crate) fn netns(&self) -> Result<PathBuf, Failure> {
        needed("CNI_NETNS", self.netns.as_ref()).cloned()
    }

    /// `CNI_ARGS`, as pairs of `KEY=VALUE` with `;` between them. Keys of others are fine with `IgnoreUnknown` only.
    pub(crate) fn args(&self) -> Result<Args, Failure> {
        let mut args = Args::default();
        let (mut namespace, mut name) = (None, None);
        let (mut ignore, mut unknown) = (false, Vec::new());
        for pair in self.args.iter().flat_map(|text| text.split(';')).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                invalid(format!("CNI_ARGS holds {pair:?}, which is no KEY=VALUE"), "write KEY=VALUE;KEY=VALUE")
            })?;
            let wrong = |why: String| invalid(format!("CNI_ARGS: {key} is wrong: {why}"), "mend it, or leave it out");
            match key {
                "IgnoreUnknown" => {
                    ignore = truth(value).ok_or_else(|| wrong(format!("{value:?} is not true or false")))?
                }
                "K8S_POD_NAMESPACE" => namespace = Some(value.to_owned()),
                "K8S_POD_NAME" => name = Some(value.to_owned()),
                "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => {}
                "IP" => {
                    let texts = value.split(',').map(str::trim).filter(|text| !text.is_empty());
                    args.addresses = texts.map(|text| address(text).map_err(&wrong)).collect::<Result<_, _>>()?;
                }
                "MAC" if value.is_empty() => {}
                "MAC" => args.mac = Some(read(value).map_err(|error| wrong(error.to_string()))?),
                _ => unknown.push(key),
            }
        }
        if !ignore && !unknown.is_empty() {
            let remedy = "leave them out, or add IgnoreUnknown=1";
            return Err(invalid(format!("CNI_ARGS holds unknown keys: {}", unknown.join(", ")), remedy));
        }
        let named = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        args.pod = named(&namespace).zip(named(&name)).map(|(namespace, name)| PodName { namespace, name });
        Ok(args)
    }
}

/// An address, whose prefix length may follow it: the node's pod CIDR says that.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    let prefixed = text.parse::<IpNet>().map(|net| net.addr());
    prefixed.or_else(|_| read::<IpAddr>(text)).map_err(|error| error.to_string())
}

fn needed<'a, T>(name: &str, given: Option<&'a T>) -> Result<&'a T, Failure> {
    given.ok_or_else(|| invalid(format!("{name} is not set"), "the runtime has to set it for this command"))
}

/// libcni's rule.
fn is_ifname(name: &str) -> bool {
    let plain = !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace());
    plain && name.len() <= IFNAME_BYTES_MAX && ![".", ".."].contains(&name)
}

/// libcni's booleans.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Result<Args, Failure> {
        Environment { args: Some(text.into()), ..Environment::default() }.args()
    }

    #[test]
    fn args_name_the_pod_and_wishes() {
        let pod = PodName { namespace: "default".into(), name: "web-0".into() };
        let kubelet =
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=8e;FOO=b";
        assert_eq!(args(kubelet), Ok(Args { pod: Some(pod), ..Args::default() }));
        let wishes = args("IP=10.244.1.7/24, fd00::7;MAC=02:00:5e:00:00:01").unwrap();
        assert_eq!(wishes.addresses, ["10.244.1.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(wishes.mac, "02:00:5e:00:00:01".parse().ok());
        for nothing in [
            "",
            ";",
            "IP=;MAC=",
            "K8S_POD_NAME=web-0",
            "K8S_POD_NAMESPACE=;K8S_POD_NAME=a",
            "ignoreunknown=1;IgnoreUnknown=TRUE",
        ] {
            assert_eq!(args(nothing), Ok(Args::default()), "{nothing}");
        }
    }

    #[test]
    fn wrong_args_are_named() {
        for (text, word) in [
            ("FOO=bar", "FOO"),
            ("IgnoreUnknown=0;FOO=bar", "FOO"),
            ("IgnoreUnknown=perhaps", "perhaps"),
            ("alone", "alone"),
            ("IP=10.244.1", "10.244.1"),
            ("MAC=02", "02"),
        ] {
            let failure = args(text).unwrap_err();
            assert_eq!(failure.code, Code::INVALID_ENVIRONMENT, "{text}");
            assert!(failure.msg.contains(word) && failure.msg.contains("CNI_ARGS"), "{failure}");
        }
    }

    #[test]
    fn keys_are_those_of_libcni() {
        let key = |container: &str, ifname: &str| {
            let given = |text: &str| Some(text.to_owned());
            Environment { container: given(container), ifname: given(ifname), ..Environment::default() }.key()
        };
        for good in ["eth0", "a23456789012345", "veth.1", "a%d"] {
            assert_eq!(key("8e3f", good).unwrap().ifname, good);
        }
        for bad in ["a234567890123456", "a/b", "a:b", "a b", "a\t", ".", ".."] {
            assert!(key("8e3f", bad).unwrap_err().msg.contains("CNI_IFNAME"), "{bad}");
        }
        assert!(key("-x", "eth0").unwrap_err().msg.contains("CNI_CONTAINERID"));
        assert!(Environment::default().key().unwrap_err().msg.contains("CNI_CONTAINERID is not set"));
    }
}

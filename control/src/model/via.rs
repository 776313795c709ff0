//! The text form of a route's next hop, as `podwire route add PREFIX via …` and the intent file use it.

use std::str::FromStr;

use super::Via;

/// Words that say something else after `via`, so that no VTEP may have them for a name.
pub const VIA_WORDS: [&str; 4] = ["host", "blackhole", "port", "vtep"];

/// The text is no next hop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a next hop; write the name of a VTEP, 'host', 'blackhole' or 'port NAME'")]
pub struct ViaError(pub String);

impl FromStr for Via {
    type Err = ViaError;

    fn from_str(text: &str) -> Result<Self, ViaError> {
        let wrong = || ViaError(text.to_owned());
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["host"] => Ok(Self::Host),
            ["blackhole"] => Ok(Self::Blackhole),
            ["port", name] => name.parse().map(Self::Port).map_err(|_| wrong()),
            ["vtep", name] => name.parse().map(Self::Vtep).map_err(|_| wrong()),
            [name] if !VIA_WORDS.contains(&name) => name.parse().map(Self::Vtep).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_printed_as_it_is_parsed() {
        for text in ["node2", "host", "blackhole", "port pod-a"] {
            assert_eq!(text.parse::<Via>().unwrap().to_string(), text);
        }
        assert_eq!("vtep node2".parse::<Via>(), "node2".parse());
    }

    #[test]
    fn a_next_hop_without_its_name_is_refused_with_the_forms() {
        for wrong in ["", "port", "vtep", "port -a", "a b", "no/de", "port a b"] {
            let said = wrong.parse::<Via>().unwrap_err().to_string();
            assert!(said.contains("'port NAME'") && said.contains(&format!("{wrong:?}")), "{said}");
        }
    }
}

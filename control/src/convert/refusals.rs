//! Refusals in a gRPC status: bounded, since both message and details travel in the trailers, and common clients
//! take no more than 16 KiB of those.

use prost::Message;

#[cfg(feature = "client")]
use super::each;
use crate::model::Refusal;
use crate::proto as pb;

/// Most bytes of encoded refusals; base64 makes a third more of them.
#[cfg(feature = "server")]
const DETAILS_BYTES_MAX: usize = 6 * 1024;
/// Most bytes of a status's message, and of one refusal's two texts; percent-encoding can triple them.
#[cfg(feature = "server")]
pub(crate) const TEXT_BYTES_MAX: usize = 1024;

/// `text`, cut at a character when it is longer than [`TEXT_BYTES_MAX`].
#[cfg(feature = "server")]
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// The status's details: as many refusals as fit, and the number of the rest.
#[cfg(feature = "server")]
pub(crate) fn encode(refusals: &[Refusal]) -> Vec<u8> {
    let mut encoded = pb::Refusals::default();
    let mut bytes = 0;
    for refusal in refusals {
        let item = pb::Refusal { object: bounded(refusal.object.clone()), reason: bounded(refusal.reason.clone()) };
        bytes += item.encoded_len() + 8;
        if bytes > DETAILS_BYTES_MAX {
            break;
        }
        encoded.items.push(item);
    }
    encoded.more = (refusals.len() - encoded.items.len()) as u64;
    encoded.encode_to_vec()
}

/// The refusals of a status's details and the number of those that did not fit; none when there are none.
#[cfg(feature = "client")]
pub(crate) fn decode(details: &[u8]) -> Option<(Vec<Refusal>, u64)> {
    let decoded = pb::Refusals::decode(details).ok().filter(|decoded| !decoded.items.is_empty())?;
    Some((each(decoded.items), decoded.more))
}

#[cfg(all(test, feature = "client", feature = "server"))]
mod tests {
    use super::*;

    #[test]
    fn refusals_come_back_as_far_as_they_fit_and_the_rest_is_counted() {
        let few = vec![Refusal::new("route 10.0.0.1/8", "write 10.0.0.0/8")];
        assert_eq!(decode(&encode(&few)), Some((few, 0)));

        let many: Vec<_> = (0..10_000).map(|at| Refusal::new(format!("port p{at}"), "ü".repeat(700))).collect();
        let details = encode(&many);
        assert!(details.len() <= DETAILS_BYTES_MAX + 16, "{}", details.len());
        let (listed, more) = decode(&details).unwrap();
        assert!(!listed.is_empty() && listed[0].reason.ends_with("ü…") && listed[0].reason.len() <= TEXT_BYTES_MAX);
        assert_eq!(listed.len() as u64 + more, 10_000);
        assert_eq!(decode(b""), None);
    }
}

//! The verbs that ask the switch something, each led to what prints its answer; and `ipam`, which states no objects.

use super::args::{AttachmentVerb, MacVerb, PortVerb, RouteVerb, Show, Verb};
use super::output::Output;
use super::{Failure, attachment, ipam, observe, status, tables};
use crate::client::Client;

/// Asks what the verb asks and prints the answer.
pub(super) async fn ask(verb: Verb, client: &Client, output: &mut Output<'_>) -> Result<(), Failure> {
    match verb {
        Verb::Status => status::show(client, output).await,
        Verb::Port(PortVerb::Show { name }) => tables::port(client, &name, output).await,
        Verb::Port(_) => tables::ports(client, output).await,
        Verb::Bridge(_) => tables::bridges(client, output).await,
        Verb::Mac(MacVerb::List { bridge }) => tables::macs(client, bridge.as_ref(), output).await,
        Verb::Route(RouteVerb::Get { address }) => tables::route(client, address, output).await,
        Verb::Route(_) => tables::routes(client, output).await,
        Verb::Vtep(_) => tables::vteps(client, output).await,
        Verb::Attachment(AttachmentVerb::List) => attachment::attachments(client, output).await,
        Verb::Ipam(verb) => ipam::ipam(client, verb, output).await,
        Verb::Stats { watch, interval } => observe::stats(client, output, watch.then_some(interval)).await,
        Verb::Drops { all } => observe::drops(client, output, all).await,
        Verb::Trace(trace) => observe::trace(client, output, &trace).await,
        Verb::Events => observe::events(client, output).await,
        Verb::Show(Show::Limits) => observe::limits(client, output).await,
        Verb::Mac(_) | Verb::Apply { .. } | Verb::Completions { .. } => Ok(()), // done before
    }
}

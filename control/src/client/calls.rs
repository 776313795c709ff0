//! A method per call. All answer with a [`super::ClientError`] that names the socket or the object, and the remedy.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use tonic::Request;

use super::{Client, ClientError, Events, Result};
use crate::convert::{ConvertError, attachment_key, each, rows, shown};
use crate::model::{
    Applied, AttachRequest, Attachment, AttachmentKey, BridgeName, BridgeReport, CounterReport, DropReport,
    ExplainQuery, Explanation, IpRange, IpamReport, Key, Limit, MacReport, NetworkName, Object, Owner, PortReport,
    RangesChanged, Readiness, RouteMatch, RouteReport, Status, VtepReport,
};
use crate::proto as pb;

/// One call by its name, with its request and how its answer is read.
macro_rules! call {
    ($client:ident.$name:ident($request:expr), $read:expr) => {
        $client
            .call(stringify!($name), $request, |mut grpc, request| async move { grpc.$name(request).await }, $read)
            .await
    };
}

#[allow(clippy::missing_errors_doc)] // said once, in the module's header
impl Client {
    /// What the switch is and how it is doing.
    pub async fn status(&self) -> Result<Status> {
        call!(self.get_status(pb::GetStatusRequest {}), TryInto::try_into)
    }

    /// States all that `owner` wants; returns when every worker uses it.
    pub async fn apply(&self, owner: Owner, objects: &[Object]) -> Result<Applied> {
        let objects = objects.iter().map(Into::into).collect();
        let request = pb::ApplyRequest { owner: pb::Owner::from(owner).into(), objects };
        call!(self.apply(request), |answer: pb::ApplyResponse| applied(answer.applied))
    }

    /// Adds or changes `upserts` and removes `deletes`; returns when every worker uses it.
    pub async fn change(&self, owner: Owner, upserts: &[Object], deletes: &[Key]) -> Result<Applied> {
        let request = pb::ChangeRequest {
            owner: pb::Owner::from(owner).into(),
            upserts: upserts.iter().map(Into::into).collect(),
            deletes: deletes.iter().map(Into::into).collect(),
        };
        call!(self.change(request), |answer: pb::ChangeResponse| applied(answer.applied))
    }

    /// Ports of every role.
    pub async fn ports(&self) -> Result<Vec<PortReport>> {
        call!(self.list_ports(pb::ListPortsRequest {}), |answer: pb::ListPortsResponse| rows(answer.ports))
    }

    /// Bridges.
    pub async fn bridges(&self) -> Result<Vec<BridgeReport>> {
        call!(self.list_bridges(pb::ListBridgesRequest {}), |answer: pb::ListBridgesResponse| rows(answer.bridges))
    }

    /// MACs of one bridge, or of all.
    pub async fn macs(&self, bridge: Option<&BridgeName>) -> Result<Vec<MacReport>> {
        let request = pb::ListMacsRequest { bridge: bridge.map(ToString::to_string) };
        call!(self.list_macs(request), |answer: pb::ListMacsResponse| rows(answer.macs))
    }

    /// Routes of every owner.
    pub async fn routes(&self) -> Result<Vec<RouteReport>> {
        call!(self.list_routes(pb::ListRoutesRequest {}), |answer: pb::ListRoutesResponse| rows(answer.routes))
    }

    /// Remote VTEPs.
    pub async fn vteps(&self) -> Result<Vec<VtepReport>> {
        call!(self.list_vteps(pb::ListVtepsRequest {}), |answer: pb::ListVtepsResponse| rows(answer.vteps))
    }

    /// The route that `address` takes; [`ClientError::NotFound`] when there is none.
    pub async fn route(&self, address: IpAddr) -> Result<RouteMatch> {
        call!(self.get_route(pb::GetRouteRequest { address: address.to_string() }), TryInto::try_into)
    }

    /// All counters.
    pub async fn counters(&self) -> Result<CounterReport> {
        call!(self.get_counters(pb::GetCountersRequest {}), |answer: pb::GetCountersResponse| Ok(answer.into()))
    }

    /// Every drop reason.
    pub async fn drops(&self) -> Result<Vec<DropReport>> {
        call!(self.list_drops(pb::ListDropsRequest {}), |answer: pb::ListDropsResponse| Ok(each(answer.drops)))
    }

    /// The walk of a made-up frame.
    pub async fn explain(&self, query: &ExplainQuery) -> Result<Explanation> {
        call!(self.explain(pb::ExplainRequest::from(query)), |answer: pb::ExplainResponse| Ok(answer.into()))
    }

    /// The ranges that pods' addresses are leased from.
    pub async fn ipam(&self) -> Result<IpamReport> {
        call!(self.get_ipam(pb::GetIpamRequest {}), TryInto::try_into)
    }

    /// Adds and removes ranges of the CLI.
    pub async fn change_ranges(&self, add: &[IpRange], remove: &[IpRange]) -> Result<RangesChanged> {
        let request = pb::ChangeRangesRequest { add: shown(add), remove: shown(remove) };
        call!(self.change_ranges(request), TryInto::try_into)
    }

    /// Every fixed limit.
    pub async fn limits(&self) -> Result<Vec<Limit>> {
        call!(self.list_limits(pb::ListLimitsRequest {}), |answer: pb::ListLimitsResponse| Ok(each(answer.limits)))
    }

    /// Wires a container's interface; [`ClientError::Exhausted`] when no address is free.
    pub async fn attach(&self, request: &AttachRequest) -> Result<Attachment> {
        call!(self.attach(pb::AttachRequest::from(request)), TryInto::try_into)
    }

    /// Takes a container's interface away; false when there is none.
    pub async fn detach(&self, key: &AttachmentKey) -> Result<bool> {
        let request = pb::DetachRequest { key: Some(key.into()) };
        call!(self.detach(request), |answer: pb::DetachResponse| Ok(answer.found))
    }

    /// What of an attachment is not as it was made; [`ClientError::NotFound`] when there is none.
    pub async fn check_attachment(
        &self,
        key: &AttachmentKey,
        netns: &Path,
        addresses: &[IpNet],
    ) -> Result<Vec<String>> {
        let request = pb::CheckAttachmentRequest {
            key: Some(key.into()),
            netns: netns.to_string_lossy().into_owned(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        call!(self.check_attachment(request), |answer: pb::CheckAttachmentResponse| Ok(answer.drifts))
    }

    /// Takes away the attachments of a network that are not among `valid`; gives their keys.
    pub async fn collect_attachments(
        &self,
        network: &NetworkName,
        valid: &[AttachmentKey],
    ) -> Result<Vec<AttachmentKey>> {
        let valid = valid.iter().map(Into::into).collect();
        let request = pb::CollectAttachmentsRequest { network: network.to_string(), valid };
        call!(self.collect_attachments(request), |answer: pb::CollectAttachmentsResponse| rows(answer.removed))
    }

    /// All attachments.
    pub async fn attachments(&self) -> Result<Vec<Attachment>> {
        let request = pb::ListAttachmentsRequest {};
        call!(self.list_attachments(request), |answer: pb::ListAttachmentsResponse| rows(answer.attachments))
    }

    /// Frees a leased address whose container is gone, or with `force` is not; gives whose it was.
    pub async fn release_address(&self, address: IpAddr, force: bool) -> Result<AttachmentKey> {
        let request = pb::ReleaseAddressRequest { address: address.to_string(), force };
        call!(self.release_address(request), |answer: pb::ReleaseAddressResponse| attachment_key(answer.key))
    }

    /// Whether containers can be attached, and how those that are fare.
    pub async fn readiness(&self) -> Result<Readiness> {
        call!(self.get_readiness(pb::GetReadinessRequest {}), |answer: pb::GetReadinessResponse| Ok(answer.into()))
    }

    /// What happens from now on, without a deadline.
    pub async fn events(&self) -> Result<Events> {
        let opening = tokio::time::timeout(self.deadline, async {
            self.grpc.clone().watch_events(Request::new(pb::WatchEventsRequest {})).await
        });
        let (call, seconds) = ("watch_events", self.deadline.as_secs());
        match opening.await {
            Ok(Ok(stream)) => Ok(Events { stream: stream.into_inner(), socket: self.socket.clone() }),
            Ok(Err(status)) => Err(ClientError::of_status(&status, &self.socket, call, seconds)),
            Err(_) => Err(ClientError::Deadline { socket: self.socket.clone(), call, seconds }),
        }
    }
}

fn applied(given: Option<pb::Applied>) -> std::result::Result<Applied, ConvertError> {
    let remedy = "use podwire and podwired of one version";
    given.ok_or_else(|| ConvertError::Missing { object: "answer".into(), field: "applied", remedy })?.try_into()
}

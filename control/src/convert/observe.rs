//! Counters, drops, the explained frame, events, limits and refusals.

use super::{ConvertError, Number, Result, each, enumeration, number, numbers, optional, same, text};
use crate::model::{
    self, CounterReport, DropReport, Event, EventKind, ExplainQuery, Explanation, PortCounterReport, WorkerCounters,
};
use crate::proto as pb;

const OBJECT: &str = "trace";

same! {
    model::Counter, pb::Counter { name, count };
    model::PortDrops, pb::PortDrops { port, frames };
    model::Step, pb::Step { stage, text };
    model::Limit, pb::Limit { name, value, unit };
    model::Refusal, pb::Refusal { object, reason };
}

numbers! {
    Protocol, Protocol { Tcp, Udp, Icmp };
}

impl From<CounterReport> for pb::GetCountersResponse {
    fn from(report: CounterReport) -> Self {
        let worker = |row: WorkerCounters| pb::WorkerCounterRow { id: row.id, counters: each(row.counters) };
        let port = |row: PortCounterReport| pb::PortCounterRow { port: row.port, counters: Some(row.counters.into()) };
        Self {
            totals: each(report.totals),
            workers: report.workers.into_iter().map(worker).collect(),
            ports: report.ports.into_iter().map(port).collect(),
        }
    }
}

impl From<pb::GetCountersResponse> for CounterReport {
    fn from(report: pb::GetCountersResponse) -> Self {
        let worker = |row: pb::WorkerCounterRow| WorkerCounters { id: row.id, counters: each(row.counters) };
        let port = |row: pb::PortCounterRow| PortCounterReport {
            port: row.port,
            counters: row.counters.map(Into::into).unwrap_or_default(),
        };
        Self {
            totals: each(report.totals),
            workers: report.workers.into_iter().map(worker).collect(),
            ports: report.ports.into_iter().map(port).collect(),
        }
    }
}

impl From<DropReport> for pb::DropRow {
    fn from(row: DropReport) -> Self {
        Self { reason: row.reason, meaning: row.meaning, frames: row.frames, ports: each(row.ports) }
    }
}

impl From<pb::DropRow> for DropReport {
    fn from(row: pb::DropRow) -> Self {
        Self { reason: row.reason, meaning: row.meaning, frames: row.frames, ports: each(row.ports) }
    }
}

impl From<&ExplainQuery> for pb::ExplainRequest {
    fn from(query: &ExplainQuery) -> Self {
        Self {
            in_port: query.in_port.to_string(),
            src: query.src.map(|src| src.to_string()),
            dst: query.dst.to_string(),
            proto: pb::Protocol::from(query.proto).into(),
            sport: query.sport.map(u32::from),
            dport: query.dport.map(u32::from),
            size: query.size,
            src_mac: query.src_mac.map(|mac| mac.to_string()),
            dst_mac: query.dst_mac.map(|mac| mac.to_string()),
        }
    }
}

impl TryFrom<pb::ExplainRequest> for ExplainQuery {
    type Error = ConvertError;

    fn try_from(query: pb::ExplainRequest) -> Result<Self> {
        let port = |field, given: Option<u32>| {
            given.map(|given| number(OBJECT, field, given, "use a port from 0 to 65535")).transpose()
        };
        let query = Self {
            in_port: text(OBJECT, "in_port", &query.in_port)?,
            src: optional(OBJECT, "src", query.src.as_ref())?,
            dst: text(OBJECT, "dst", &query.dst)?,
            proto: enumeration(OBJECT, "proto", query.proto)?,
            sport: port("sport", query.sport)?,
            dport: port("dport", query.dport)?,
            size: query.size,
            src_mac: optional(OBJECT, "src_mac", query.src_mac.as_ref())?,
            dst_mac: optional(OBJECT, "dst_mac", query.dst_mac.as_ref())?,
        };
        query.validate()?;
        Ok(query)
    }
}

impl From<Explanation> for pb::ExplainResponse {
    fn from(given: Explanation) -> Self {
        Self { steps: each(given.steps), verdict: given.verdict, egress: given.egress }
    }
}

impl From<pb::ExplainResponse> for Explanation {
    fn from(given: pb::ExplainResponse) -> Self {
        Self { steps: each(given.steps), verdict: given.verdict, egress: given.egress }
    }
}

impl From<EventKind> for pb::EventKind {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::Unknown => Self::Unspecified,
            EventKind::PortAdded => Self::PortAdded,
            EventKind::PortRemoved => Self::PortRemoved,
            EventKind::PortClosed => Self::PortClosed,
            EventKind::BridgeChanged => Self::BridgeChanged,
            EventKind::RouteChanged => Self::RouteChanged,
            EventKind::VtepChanged => Self::VtepChanged,
            EventKind::MacMoved => Self::MacMoved,
            EventKind::PathMtuLowered => Self::PathMtuLowered,
            EventKind::OffloadDisabled => Self::OffloadDisabled,
            EventKind::GenerationPublished => Self::GenerationPublished,
            EventKind::EventsMissed => Self::EventsMissed,
        }
    }
}

impl From<Event> for pb::Event {
    fn from(event: Event) -> Self {
        let kind = pb::EventKind::from(event.kind).into();
        Self { time_ms: event.time_ms, kind, object: event.object, text: event.text }
    }
}

impl From<pb::Event> for Event {
    fn from(event: pb::Event) -> Self {
        let known = EventKind::ALL.iter().find(|kind| pb::EventKind::from(**kind) as i32 == event.kind);
        let kind = known.copied().unwrap_or(EventKind::Unknown);
        Self { time_ms: event.time_ms, kind, object: event.object, text: event.text }
    }
}

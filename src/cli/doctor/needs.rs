//! What each field is for, and what is lost without it.

use crate::finding::FindingKind;
use crate::record::{FieldId, Layout};

/// A field that the engine reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Any of these will do.
    pub(super) fields: &'static [FieldId],
    /// Detectors that find nothing without it.
    pub(super) indispensable_to: &'static [FindingKind],
    /// What is lost.
    pub(super) cost: &'static str,
}

const ALL: &[FindingKind] = FindingKind::ALL;

const NEEDS: [Need; 16] = [
    need(
        &[FieldId::SrcAddr, FieldId::PktSrcAddr],
        ALL,
        "there are no contacts, so nothing is found",
    ),
    need(
        &[FieldId::DstAddr, FieldId::PktDstAddr],
        ALL,
        "there are no contacts, so nothing is found",
    ),
    need(&[FieldId::End], ALL, "there is no event time, so nothing is found"),
    need(&[FieldId::DstPort], ALL, "services are unknown"),
    need(&[FieldId::SrcPort], &[], "who called whom can only be told from TCP flags"),
    need(&[FieldId::Protocol], ALL, "TCP, UDP and ICMP can't be told apart"),
    need(
        &[FieldId::Action],
        &[],
        "what was rejected counts as accepted: scans of closed networks look answered",
    ),
    need(&[FieldId::LogStatus], &[], "gaps (SKIPDATA) and silence (NODATA) are not seen"),
    need(&[FieldId::Bytes, FieldId::Packets], &[], "tops and totals have no volume"),
    need(
        &[FieldId::TcpFlags],
        &[],
        "who opened a connection is judged by ports, and an unanswered SYN looks like a session",
    ),
    need(
        &[FieldId::FlowDirection],
        &[],
        "traffic between two interfaces of your own counts at both of them",
    ),
    need(
        &[FieldId::PktSrcAddr],
        &[],
        "sources behind NAT gateways, transit gateways and pods show as the interface's own address",
    ),
    need(
        &[FieldId::PktDstAddr],
        &[],
        "destinations behind NAT gateways, transit gateways and pods show as the interface's own address",
    ),
    need(
        &[FieldId::Start],
        &[],
        "the aggregation interval is unknown, and lateness stays at 10 minutes",
    ),
    need(
        &[FieldId::InterfaceId, FieldId::TgwAttachmentId],
        &[],
        "findings don't name the interface",
    ),
    need(
        &[FieldId::AccountId, FieldId::VpcId, FieldId::SubnetId],
        &[],
        "findings don't name account, VPC or subnet",
    ),
];

const fn need(
    fields: &'static [FieldId],
    indispensable_to: &'static [FindingKind],
    cost: &'static str,
) -> Need {
    Need { fields, indispensable_to, cost }
}

/// What a layout lacks.
pub(super) fn missing(layout: &Layout) -> impl Iterator<Item = Need> {
    let has = |field: &FieldId| layout.position(*field).is_some();
    NEEDS.into_iter().filter(move |need| !need.fields.iter().any(has))
}

/// The word that means a layout in a configuration, if there is one.
pub(super) fn preset(layout: &Layout) -> Option<String> {
    presets().find(|(_, preset)| preset == layout).map(|(name, _)| name)
}

/// AWS's own orders of fields, by the words that mean them.
pub(super) fn presets() -> impl Iterator<Item = (String, Layout)> {
    let names = [2, 3, 4, 5, 7, 8, 9, 10, 11].map(|version| format!("v{version}"));
    names.into_iter().chain(["tgw".to_owned()]).map(|name| {
        let layout = Layout::from_text(&name).expect("presets are layouts");
        (name, layout)
    })
}

/// What to write as `format`: a word, or the LogFormat string.
pub(super) fn format_text(layout: &Layout) -> String {
    preset(layout).unwrap_or_else(|| {
        let fields: Vec<String> =
            layout.slots().iter().map(|slot| format!("${{{}}}", slot.name())).collect();
        fields.join(" ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, expected: &[&str]) {
        let layout = Layout::from_text(format).unwrap();
        let names: Vec<&str> = missing(&layout).map(|need| need.fields[0].name()).collect();
        assert_eq!(names, expected, "{format}");
    }

    #[test]
    fn what_is_missing_is_known() {
        check("v5", &[]);
        check("v2", &["tcp-flags", "flow-direction", "pkt-srcaddr", "pkt-dstaddr"]);
        check(
            "instance-id interface-id srcaddr dstaddr pkt-srcaddr pkt-dstaddr",
            &[
                "end",
                "dstport",
                "srcport",
                "protocol",
                "action",
                "log-status",
                "bytes",
                "tcp-flags",
                "flow-direction",
                "start",
                "account-id",
            ],
        );
    }

    #[test]
    fn a_format_is_a_word_or_a_string() {
        let text = |format: &str| format_text(&Layout::from_text(format).unwrap());
        assert_eq!(text("v5"), "v5");
        assert_eq!(text("tgw"), "tgw");
        assert_eq!(text("srcaddr,dstaddr"), "${srcaddr} ${dstaddr}");
    }
}

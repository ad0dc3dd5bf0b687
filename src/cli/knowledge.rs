//! What the operator knows of the network, from context files and threat lists, as detectors take it.
//!
//! Read at the start and on every reload, beside the run: the pipeline goes on with what it has until all of it
//! is there, and keeps that if anything can't be read.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use crate::detect::{DetectSettings, Network, ProtocolPolicy, ProtocolRule};
use crate::enrich::{self, OperatorContext, Service, read_threat_list};
use crate::net::{AddressSet, AddressSetBuilder};

/// How findings name the addresses of the operator's context.
const CONTEXT_LIST: &str = "threat_list";

/// How findings name the rule that holds everywhere.
const GLOBAL_RULE: &str = "global";

/// Bytes read from a list at once.
const BUFFER_BYTES: usize = 1 << 18;

/// What the context files and the lists of the settings say.
///
/// # Errors
/// The first file that can't be read or is faulty, and more rules than can be kept apart.
pub(crate) fn network(
    settings: &DetectSettings,
    context_files: &[PathBuf],
) -> anyhow::Result<Network> {
    let operator = context(context_files)?;
    let mut rules = vec![ProtocolRule {
        name: GLOBAL_RULE.to_owned(),
        allowed_protocols: operator.allowed_protocols.clone(),
        forbidden_services: services(&operator.forbidden_services),
        ..ProtocolRule::default()
    }];
    rules.retain(|rule| !(rule.allowed_protocols.is_empty() && rule.forbidden_services.is_empty()));
    rules.extend(operator.protocol_rules.iter().map(rule));
    let protocols = ProtocolPolicy::new(rules, &operator.interfaces)?;
    let threats = threats(settings, &operator)?;
    Ok(Network {
        inside: operator.vpc_cidrs,
        allowlisted: operator.allowlisted_scanners,
        nat_gateways: operator.nat_gateways,
        resolvers: operator.resolvers,
        threats: Arc::new(threats),
        protocols: Arc::new(protocols),
        allowances: operator.allow,
        interfaces: operator.interfaces,
    })
}

fn context(files: &[PathBuf]) -> anyhow::Result<OperatorContext> {
    let mut operator = OperatorContext::default();
    for path in files {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read context file `{}`", path.display()))?;
        let one = OperatorContext::from_json(&text)
            .with_context(|| format!("context file `{}`", path.display()))?;
        operator.merge(one);
    }
    Ok(operator)
}

fn services(listed: &[Service]) -> Vec<(u8, u16)> {
    listed.iter().map(|service| (service.protocol, service.port)).collect()
}

fn rule(written: &enrich::ProtocolRule) -> ProtocolRule {
    ProtocolRule {
        name: written.name.clone(),
        subnets: written.subnets.clone(),
        interfaces: written.interfaces.clone(),
        cidrs: written.cidrs.clone(),
        allowed_protocols: written.allowed_protocols.clone(),
        allowed_services: services(&written.allowed_services),
        forbidden_services: services(&written.forbidden_services),
    }
}

/// The threat lists of the settings and of the context; nothing is read for a detector that is off.
fn threats(settings: &DetectSettings, operator: &OperatorContext) -> anyhow::Result<AddressSet> {
    let settings = &settings.suspicious_ip;
    if !settings.enabled {
        return Ok(AddressSet::default());
    }
    let mut builder = AddressSetBuilder::new(settings.entries_max as usize);
    builder.begin_list(CONTEXT_LIST);
    for entry in &operator.threat_list {
        builder.add(*entry, None);
    }
    for path in &settings.lists {
        read_list(path, &mut builder)?;
    }
    let threats = builder.build();
    if !settings.lists.is_empty() {
        let (entries, bytes) = (threats.len(), threats.bytes());
        tracing::info!(lists = settings.lists.len(), entries, bytes, "threat lists were read");
    }
    Ok(threats)
}

/// Reads a threat list, and logs what was left out of it.
///
/// # Errors
/// If it can't be read, or there is no address in it.
pub(crate) fn read_list(path: &Path, into: &mut AddressSetBuilder) -> anyhow::Result<()> {
    let told = || format!("threat list `{}`", path.display());
    let name = path.file_name().map_or_else(told, |name| name.to_string_lossy().into_owned());
    let file = File::open(path).with_context(|| format!("cannot read {}", told()))?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let report = read_threat_list(&name, &mut reader, into).with_context(told)?;
    if report.faults > 0 {
        tracing::warn!(
            list = name,
            entries = report.entries,
            faults = report.faults,
            first = report.told.join("; "),
            "a threat list has texts that are no entries; they are left out"
        );
    }
    if report.refused > 0 {
        tracing::warn!(
            list = name,
            refused = report.refused,
            "there is no room for all threat lists; raise `detectors.suspicious_ip.entries_max`"
        );
    }
    Ok(())
}

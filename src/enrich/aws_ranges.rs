//! AWS's list of its own address ranges, `ip-ranges.json`, as a context file: of it, who checks health from
//! outside.

use serde::Deserialize;

use super::operator::OperatorError;

/// The service whose ranges check health.
const HEALTH_CHECKS: &str = "ROUTE53_HEALTHCHECKS";

/// Keys that AWS's list has and a context of the operator's does not.
const KEYS: [&str; 2] = ["syncToken", "prefixes"];

#[derive(Deserialize)]
struct Ranges {
    prefixes: Vec<Range>,
    #[serde(default)]
    ipv6_prefixes: Vec<Range>,
}

#[derive(Deserialize)]
struct Range {
    #[serde(alias = "ipv6_prefix")]
    ip_prefix: String,
    service: String,
}

/// Whether a JSON object is AWS's list.
pub(super) fn is_ranges(object: &serde_json::Map<String, serde_json::Value>) -> bool {
    KEYS.iter().all(|key| object.contains_key(*key))
}

/// The ranges from which Route 53 checks health.
pub(super) fn health_checkers(text: &str) -> Result<Vec<String>, OperatorError> {
    let Ranges { prefixes, ipv6_prefixes } = serde_json::from_str(text)?;
    let ranges = prefixes.into_iter().chain(ipv6_prefixes);
    let found: Vec<String> = ranges
        .filter(|range| range.service == HEALTH_CHECKS)
        .map(|range| range.ip_prefix)
        .collect();
    if found.is_empty() {
        return Err(OperatorError::NoHealthChecks);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::OperatorContext;

    fn check(ranges: &str, expected: Result<&[&str], &str>) {
        let text = format!(r#"{{"syncToken": "1", "createDate": "2026-01-01", {ranges}}}"#);
        let context = OperatorContext::from_json(&text);
        match expected {
            Ok(addrs) => {
                let allow = context.unwrap().allow;
                assert_eq!(allow.len(), 1, "{text}");
                for addr in addrs {
                    let addr = addr.parse().unwrap();
                    let held = allow[0].sources.iter().any(|prefix| prefix.contains(addr));
                    assert!(held, "{text}: {addr}");
                }
            }
            Err(fault) => {
                let message = context.unwrap_err().to_string();
                assert!(message.contains(fault), "{text}: {message}");
            }
        }
    }

    #[test]
    fn health_checks_of_route_53_are_taken() {
        check(
            r#""prefixes": [
                {"ip_prefix": "15.177.0.0/18", "region": "GLOBAL", "service": "ROUTE53_HEALTHCHECKS"},
                {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "S3"}],
               "ipv6_prefixes": [
                {"ipv6_prefix": "2a05:d07c::/40", "region": "GLOBAL", "service": "ROUTE53_HEALTHCHECKS"}]"#,
            Ok(&["15.177.3.4", "2a05:d07c::1"]),
        );
    }

    #[test]
    fn a_list_without_them_is_told() {
        check(r#""prefixes": []"#, Err("no range of `ROUTE53_HEALTHCHECKS`"));
        check(r#""prefixes": [{"service": "S3"}]"#, Err("missing field `ip_prefix`"));
        check(
            r#""prefixes": [{"ip_prefix": "15.177.0.0/99", "service": "ROUTE53_HEALTHCHECKS"}]"#,
            Err("`15.177.0.0/99` is not an address or a CIDR block"),
        );
    }
}

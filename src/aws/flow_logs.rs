//! What EC2 says of flow logs: their format, interval and destination.

use serde::Deserialize;

use super::query::{Page, QueryClient, QueryError};

/// A flow log as its owner made it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowLog {
    /// `fl-…`
    pub flow_log_id: String,
    /// The VPC, subnet, interface or transit gateway that it watches.
    #[serde(default)]
    pub resource_id: String,
    /// `ACCEPT`, `REJECT` or `ALL`.
    #[serde(default)]
    pub traffic_type: String,
    /// `cloud-watch-logs`, `s3` or `kinesis-data-firehose`.
    #[serde(default)]
    pub log_destination_type: String,
    /// ARN of a bucket, delivery stream or log group.
    #[serde(default)]
    pub log_destination: String,
    /// The log group, if that is where it goes.
    #[serde(default)]
    pub log_group_name: String,
    /// The fields of its records, in order: `${version} ${account-id} …`.
    #[serde(default)]
    pub log_format: String,
    /// Seconds that a record stands for at most, 60 or 600; absent where the service does not say.
    pub max_aggregation_interval: Option<u32>,
    /// `SUCCESS` or `FAILED`.
    #[serde(default)]
    pub deliver_logs_status: String,
    /// Why delivery fails, if it does.
    #[serde(default)]
    pub deliver_logs_error_message: String,
}

/// Which flow logs are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowLogQuery {
    /// One by its id, `fl-…`.
    Id(String),
    /// All of a VPC, subnet, interface or transit gateway, by its id.
    Resource(String),
    /// All of the account in the region.
    All,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FlowLogPage {
    #[serde(default)]
    flow_log_set: FlowLogSet,
    next_token: Option<String>,
}

#[derive(Default, Deserialize)]
struct FlowLogSet {
    #[serde(default)]
    item: Vec<FlowLog>,
}

impl Page for FlowLogPage {
    type Item = FlowLog;

    fn into_parts(self) -> (Vec<FlowLog>, Option<String>) {
        (self.flow_log_set.item, self.next_token)
    }
}

/// The flow logs that are meant, by `DescribeFlowLogs`.
///
/// # Errors
/// [`QueryError::Denied`] names the action that is missing.
pub async fn describe_flow_logs(
    client: &QueryClient,
    query: &FlowLogQuery,
) -> Result<Vec<FlowLog>, QueryError> {
    let parameter = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let parameters = match query {
        FlowLogQuery::Id(id) => vec![parameter("FlowLogId.1", id)],
        FlowLogQuery::Resource(id) => {
            vec![parameter("Filter.1.Name", "resource-id"), parameter("Filter.1.Value.1", id)]
        }
        FlowLogQuery::All => vec![parameter("MaxResults", "1000")],
    };
    client.list::<FlowLogPage>("DescribeFlowLogs", &parameters).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let text = "<DescribeFlowLogsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
            <requestId>1</requestId><flowLogSet><item>\
            <creationTime>2026-01-01T00:00:00Z</creationTime><deliverLogsStatus>SUCCESS</deliverLogsStatus>\
            <flowLogId>fl-1</flowLogId><flowLogStatus>ACTIVE</flowLogStatus>\
            <resourceId>vpc-1</resourceId><trafficType>ALL</trafficType>\
            <logDestinationType>s3</logDestinationType><logDestination>arn:aws:s3:::b</logDestination>\
            <logFormat>${version} ${srcaddr}</logFormat><tagSet/>\
            <maxAggregationInterval>60</maxAggregationInterval></item></flowLogSet>\
            <nextToken>t</nextToken></DescribeFlowLogsResponse>";
        let page: FlowLogPage = quick_xml::de::from_str(text).unwrap();
        let (logs, next) = page.into_parts();
        assert_eq!(next.as_deref(), Some("t"));
        assert_eq!(logs.len(), 1);
        assert_eq!(logs[0].log_format, "${version} ${srcaddr}");
        assert_eq!(logs[0].max_aggregation_interval, Some(60));
        let none = "<DescribeFlowLogsResponse><flowLogSet/></DescribeFlowLogsResponse>";
        let page: FlowLogPage = quick_xml::de::from_str(none).unwrap();
        assert!(page.into_parts().0.is_empty());
    }
}

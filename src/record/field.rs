//! The one table of AWS field names: everything that knows a flow log field derives from it.
//!
//! Layouts, typed columns, Parquet and Athena column names, CloudWatch Logs Insights names and the
//! default formats are all read off [`FieldId::ALL`] and [`FieldId::spec`]. A field that AWS adds is
//! one more line here. Source: AWS's tables of VPC flow log fields (versions 2 to 11) and Transit
//! Gateway flow log fields (version 6).

/// How the text of a field is checked and stored. `-` is legal in every field of every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// An IPv4 or IPv6 address.
    Addr,
    /// A port, 0 to 65535.
    Port,
    /// An IANA protocol number, 0 to 255.
    Protocol,
    /// A packet or byte counter, 0 to 2^64 - 1.
    Counter,
    /// Unix seconds, 0 to 2^63 - 1.
    Seconds,
    /// A small number that Parquet stores as a signed 32-bit integer: 0 to 2^31 - 1.
    Int32,
    /// `ACCEPT` or `REJECT`.
    Action,
    /// `OK`, `NODATA` or `SKIPDATA`.
    LogStatus,
    /// Any text without blanks.
    Text,
}

/// What the table says of one field.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// The name in a header line and in a `${name}` format string.
    pub name: &'static str,
    /// How its text is checked and stored.
    pub kind: FieldKind,
    /// The record version that brought the field to VPC flow logs, 0 if they don't have it.
    pub vpc_version: u8,
    /// Its place in the default Transit Gateway format, 1 to 36, 0 if they don't have it.
    pub tgw_position: u8,
}

macro_rules! fields {
    ($($id:ident $name:literal $kind:ident $vpc_version:literal $tgw_position:literal,)*) => {
        /// A field that AWS documents, in the order of AWS's tables: VPC fields first, then those that
        /// only Transit Gateway records have.
        #[expect(missing_docs, reason = "each variant is the name beside it in the table")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum FieldId { $($id,)* }

        impl FieldId {
            /// Every field, in table order.
            pub const ALL: [Self; FIELD_COUNT] = [$(Self::$id,)*];
        }

        /// How many fields the table has.
        pub const FIELD_COUNT: usize = [$($name,)*].len();

        const TABLE: [FieldSpec; FIELD_COUNT] = [$(FieldSpec {
            name: $name,
            kind: FieldKind::$kind,
            vpc_version: $vpc_version,
            tgw_position: $tgw_position,
        },)*];
    };
}

fields! {
    Version "version" Int32 2 1,
    AccountId "account-id" Text 2 3,
    InterfaceId "interface-id" Text 2 0,
    SrcAddr "srcaddr" Addr 2 17,
    DstAddr "dstaddr" Addr 2 18,
    SrcPort "srcport" Port 2 19,
    DstPort "dstport" Port 2 20,
    Protocol "protocol" Protocol 2 21,
    Packets "packets" Counter 2 22,
    Bytes "bytes" Counter 2 23,
    Start "start" Seconds 2 24,
    End "end" Seconds 2 25,
    Action "action" Action 2 0,
    LogStatus "log-status" LogStatus 2 26,
    VpcId "vpc-id" Text 3 0,
    SubnetId "subnet-id" Text 3 0,
    InstanceId "instance-id" Text 3 0,
    TcpFlags "tcp-flags" Int32 3 32,
    Type "type" Text 3 27,
    PktSrcAddr "pkt-srcaddr" Addr 3 0,
    PktDstAddr "pkt-dstaddr" Addr 3 0,
    Region "region" Text 4 33,
    AzId "az-id" Text 4 0,
    SublocationType "sublocation-type" Text 4 0,
    SublocationId "sublocation-id" Text 4 0,
    PktSrcAwsService "pkt-src-aws-service" Text 5 35,
    PktDstAwsService "pkt-dst-aws-service" Text 5 36,
    FlowDirection "flow-direction" Text 5 34,
    TrafficPath "traffic-path" Int32 5 0,
    EcsClusterArn "ecs-cluster-arn" Text 7 0,
    EcsClusterName "ecs-cluster-name" Text 7 0,
    EcsContainerInstanceArn "ecs-container-instance-arn" Text 7 0,
    EcsContainerInstanceId "ecs-container-instance-id" Text 7 0,
    EcsContainerId "ecs-container-id" Text 7 0,
    EcsSecondContainerId "ecs-second-container-id" Text 7 0,
    EcsServiceName "ecs-service-name" Text 7 0,
    EcsTaskDefinitionArn "ecs-task-definition-arn" Text 7 0,
    EcsTaskArn "ecs-task-arn" Text 7 0,
    EcsTaskId "ecs-task-id" Text 7 0,
    RejectReason "reject-reason" Text 8 0,
    ResourceId "resource-id" Text 9 0,
    EncryptionStatus "encryption-status" Text 10 0,
    InstanceTag "instance-tag" Text 11 0,
    InstanceTag2 "instance-tag-2" Text 11 0,
    InterfaceTag "interface-tag" Text 11 0,
    InterfaceTag2 "interface-tag-2" Text 11 0,
    AsgTag "asg-tag" Text 11 0,
    AsgTag2 "asg-tag-2" Text 11 0,
    InterfaceType "interface-type" Text 11 0,
    NextHopInterfaceId "next-hop-interface-id" Text 11 0,
    NextHopSubnetId "next-hop-subnet-id" Text 11 0,
    NextHopAzId "next-hop-az-id" Text 11 0,
    NextHopVpcId "next-hop-vpc-id" Text 11 0,
    NextHopInterfaceType "next-hop-interface-type" Text 11 0,
    ResourceType "resource-type" Text 0 2,
    TgwId "tgw-id" Text 0 4,
    TgwAttachmentId "tgw-attachment-id" Text 0 5,
    TgwSrcVpcAccountId "tgw-src-vpc-account-id" Text 0 6,
    TgwDstVpcAccountId "tgw-dst-vpc-account-id" Text 0 7,
    TgwSrcVpcId "tgw-src-vpc-id" Text 0 8,
    TgwDstVpcId "tgw-dst-vpc-id" Text 0 9,
    TgwSrcSubnetId "tgw-src-subnet-id" Text 0 10,
    TgwDstSubnetId "tgw-dst-subnet-id" Text 0 11,
    TgwSrcEni "tgw-src-eni" Text 0 12,
    TgwDstEni "tgw-dst-eni" Text 0 13,
    TgwSrcAzId "tgw-src-az-id" Text 0 14,
    TgwDstAzId "tgw-dst-az-id" Text 0 15,
    TgwPairAttachmentId "tgw-pair-attachment-id" Text 0 16,
    PacketsLostNoRoute "packets-lost-no-route" Counter 0 28,
    PacketsLostBlackhole "packets-lost-blackhole" Counter 0 29,
    PacketsLostMtuExceeded "packets-lost-mtu-exceeded" Counter 0 30,
    PacketsLostTtlExpired "packets-lost-ttl-expired" Counter 0 31,
}

const _: () = assert!(FIELD_COUNT <= 128, "ColumnSet keeps one bit per field in a u128");

impl FieldId {
    /// The table's row for this field.
    #[must_use]
    pub const fn spec(self) -> &'static FieldSpec {
        &TABLE[self as usize]
    }

    /// The name in header lines, format strings and every report of flowgauge.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// How the field's text is checked and stored.
    #[must_use]
    pub const fn kind(self) -> FieldKind {
        self.spec().kind
    }

    /// The field with this header name (`account-id`), exact case.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name().as_bytes() == name)
    }

    /// The field with this Parquet or Athena column name (`account_id`).
    #[must_use]
    pub fn from_column_name(column: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| {
            let name = field.name();
            name.len() == column.len()
                && name.bytes().zip(column.bytes()).all(|(a, b)| a == b || (a == b'-' && b == b'_'))
        })
    }

    /// The Parquet and Athena column: the header name with every `-` turned into `_`.
    #[must_use]
    pub fn column_name(self) -> String {
        self.name().replace('-', "_")
    }

    /// The name that CloudWatch Logs Insights discovers: `srcAddr`, `interfaceId`, `logStatus`.
    ///
    /// Rule: drop each `-` and capitalise what follows. Addresses and ports of version 2 have no `-`
    /// in the header, so their two words are split first.
    #[must_use]
    pub fn insights_name(self) -> String {
        let spaced = match self {
            Self::SrcAddr => "src-addr",
            Self::DstAddr => "dst-addr",
            Self::SrcPort => "src-port",
            Self::DstPort => "dst-port",
            Self::PktSrcAddr => "pkt-src-addr",
            Self::PktDstAddr => "pkt-dst-addr",
            other => other.name(),
        };
        let mut words = spaced.split('-');
        let mut name = words.next().unwrap_or_default().to_owned();
        for word in words {
            let (first, rest) = word.split_at(1);
            name.push_str(&first.to_ascii_uppercase());
            name.push_str(rest);
        }
        name
    }

    /// The fields of VPC flow logs up to `version`, in AWS's order; version 2 is the default format.
    #[must_use]
    pub fn vpc_up_to(version: u8) -> Vec<Self> {
        let in_version = |field: &Self| (1..=version).contains(&field.spec().vpc_version);
        Self::ALL.into_iter().filter(in_version).collect()
    }

    /// The 36 fields of the default Transit Gateway format, in AWS's order.
    #[must_use]
    pub fn transit_gateway() -> Vec<Self> {
        let mut fields: Vec<Self> =
            Self::ALL.into_iter().filter(|field| field.spec().tgw_position > 0).collect();
        fields.sort_by_key(|field| field.spec().tgw_position);
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vpc_versions_have_the_documented_field_counts() {
        for (version, count) in [(2, 14), (3, 21), (4, 25), (5, 29), (7, 39), (8, 40), (9, 41)] {
            assert_eq!(FieldId::vpc_up_to(version).len(), count, "version {version}");
        }
        assert_eq!(FieldId::vpc_up_to(10).len(), 42);
        assert_eq!(FieldId::vpc_up_to(11).len(), 54);
    }

    #[test]
    fn transit_gateway_positions_are_one_to_thirty_six() {
        let positions: Vec<u8> =
            FieldId::transit_gateway().iter().map(|field| field.spec().tgw_position).collect();
        assert_eq!(positions, (1..=36).collect::<Vec<u8>>());
    }

    #[test]
    fn every_name_is_found_and_unique() {
        for field in FieldId::ALL {
            assert_eq!(FieldId::from_name(field.name().as_bytes()), Some(field));
            assert_eq!(FieldId::from_column_name(&field.column_name()), Some(field));
        }
        assert_eq!(FieldId::from_name(b"srcAddr"), None);
    }

    #[test]
    fn insights_names_follow_the_console() {
        for (field, name) in [
            (FieldId::SrcAddr, "srcAddr"),
            (FieldId::InterfaceId, "interfaceId"),
            (FieldId::LogStatus, "logStatus"),
            (FieldId::PktSrcAddr, "pktSrcAddr"),
            (FieldId::TcpFlags, "tcpFlags"),
            (FieldId::NextHopAzId, "nextHopAzId"),
            (FieldId::InstanceTag2, "instanceTag2"),
            (FieldId::Bytes, "bytes"),
        ] {
            assert_eq!(field.insights_name(), name);
        }
    }
}

//! A flow as a line of text in the fields and the order of a layout.

use std::sync::Arc;

use super::exchange::{Flow, ICMP, ICMP_V6, Status, TCP, Via};
use super::network::{IdentifierKind, Interface, InterfaceIndex, Network, Role};
use super::random::{mix, mix2, pick_by_hash};
use super::text::LineText;
use crate::net::Addr;
use crate::record::{FieldId, Layout, Slot};

const REGION: &[u8] = b"us-east-1";
/// AWS services that published address ranges name; most addresses are in none.
const AWS_SERVICES: [&[u8]; 6] =
    [b"AMAZON", b"S3", b"EC2", b"CLOUDFRONT", b"DYNAMODB", b"API_GATEWAY"];
const TEAMS: [&[u8]; 4] = [b"payments", b"search%20index", b"web%2Dfront", b"data%3Aplatform"];

/// Writes flows in one layout.
#[derive(Clone, Debug)]
pub(super) struct LineWriter {
    layout: Arc<Layout>,
    /// The highest version among the fields, as AWS writes it into every record.
    version: u8,
    line: LineText,
}

impl LineWriter {
    pub(super) fn new(layout: Arc<Layout>) -> Self {
        let version = layout.slots().iter().map(slot_version).max().unwrap_or(2);
        Self { layout, version, line: LineText::new() }
    }

    /// The flow's line with its LF.
    pub(super) fn write(&mut self, network: &Network, flow: &Flow) -> &[u8] {
        let context = Context {
            network,
            flow,
            interface: network.interface(flow.interface),
            version: self.version,
        };
        self.line.clear();
        for slot in self.layout.slots() {
            match slot {
                Slot::Known(field) if flow.status == Status::Ok => {
                    context.write_field(*field, &mut self.line);
                }
                Slot::Known(field) => context.write_standing_field(*field, &mut self.line),
                Slot::Unknown(_) => self.line.byte(b'-'),
            }
            self.line.byte(b' ');
        }
        self.line.end_line();
        self.line.as_bytes()
    }
}

/// The version that a field brings; Transit Gateway fields came with version 6.
fn slot_version(slot: &Slot) -> u8 {
    match slot {
        Slot::Known(field) if field.spec().vpc_version > 0 => field.spec().vpc_version,
        Slot::Known(_) => 6,
        Slot::Unknown(_) => 2,
    }
}

struct Context<'a> {
    network: &'a Network,
    flow: &'a Flow,
    interface: &'a Interface,
    version: u8,
}

impl Context<'_> {
    fn write_field(&self, field: FieldId, line: &mut LineText) {
        let flow = self.flow;
        match field {
            FieldId::SrcAddr => line.addr(flow.src),
            FieldId::DstAddr => line.addr(flow.dst),
            FieldId::SrcPort => line.number(flow.src_port.into()),
            FieldId::DstPort => line.number(flow.dst_port.into()),
            FieldId::Protocol => line.number(flow.protocol.into()),
            FieldId::Packets => line.number(flow.packets),
            FieldId::Bytes => line.number(flow.bytes),
            FieldId::Action => line.text(if flow.rejected { b"REJECT" } else { b"ACCEPT" }),
            FieldId::TcpFlags => line.number(flow.tcp_flags.into()),
            FieldId::Type => line.text(if flow.src.as_v4().is_some() { b"IPv4" } else { b"IPv6" }),
            FieldId::PktSrcAddr => line.addr(self.packet_source()),
            FieldId::PktDstAddr => line.addr(self.packet_destination()),
            FieldId::PktSrcAwsService => line.text(aws_service(self.packet_source())),
            FieldId::PktDstAwsService => line.text(aws_service(self.packet_destination())),
            FieldId::FlowDirection => {
                line.text(if flow.egress { b"egress" } else { b"ingress" });
            }
            FieldId::TrafficPath => self.write_traffic_path(line),
            FieldId::EncryptionStatus => line.byte(self.encryption_status()),
            FieldId::PacketsLostNoRoute
            | FieldId::PacketsLostBlackhole
            | FieldId::PacketsLostMtuExceeded
            | FieldId::PacketsLostTtlExpired => line.byte(b'0'),
            FieldId::EcsClusterArn
            | FieldId::EcsClusterName
            | FieldId::EcsContainerInstanceArn
            | FieldId::EcsContainerInstanceId
            | FieldId::EcsContainerId
            | FieldId::EcsServiceName
            | FieldId::EcsTaskDefinitionArn
            | FieldId::EcsTaskArn
            | FieldId::EcsTaskId => self.write_ecs(field, line),
            FieldId::NextHopInterfaceId
            | FieldId::NextHopSubnetId
            | FieldId::NextHopAzId
            | FieldId::NextHopVpcId
            | FieldId::NextHopInterfaceType => self.write_next_hop(field, line),
            FieldId::TgwSrcVpcAccountId
            | FieldId::TgwSrcVpcId
            | FieldId::TgwSrcSubnetId
            | FieldId::TgwSrcEni
            | FieldId::TgwSrcAzId => self.write_gateway_end(field, self.source_interface(), line),
            FieldId::TgwDstVpcAccountId
            | FieldId::TgwDstVpcId
            | FieldId::TgwDstSubnetId
            | FieldId::TgwDstEni
            | FieldId::TgwDstAzId => {
                self.write_gateway_end(field, self.destination_interface(), line);
            }
            FieldId::TgwPairAttachmentId => match flow.peer {
                Some(peer) => self.write_attachment(self.network.interface(peer), line),
                None => line.byte(b'-'),
            },
            standing => self.write_standing_field(standing, line),
        }
    }

    /// A field of the interface or its window; `-` for every other. All that is left in a record that
    /// stands for a window without traffic.
    fn write_standing_field(&self, field: FieldId, line: &mut LineText) {
        let interface = self.interface;
        match field {
            FieldId::Version => line.number(self.version.into()),
            FieldId::AccountId => line.text(self.network.account_bytes(self.flow.interface)),
            FieldId::InterfaceId => line.text(&interface.name),
            FieldId::Start => line.seconds(self.flow.start),
            FieldId::End => line.seconds(self.flow.end),
            FieldId::LogStatus => line.text(match self.flow.status {
                Status::Ok => b"OK",
                Status::NoData => b"NODATA",
                Status::SkipData => b"SKIPDATA",
            }),
            FieldId::VpcId => self.write_vpc(interface, line),
            FieldId::SubnetId => self.write_subnet(interface, line),
            FieldId::InstanceId if self.is_gateway() => line.byte(b'-'),
            FieldId::InstanceId => line.identifier(b"i-", interface.hash),
            FieldId::Region => line.text(REGION),
            FieldId::AzId => write_zone(interface, line),
            FieldId::InstanceTag => line.text(pick_by_hash(&TEAMS, mix(interface.hash))),
            FieldId::InterfaceTag => line.text(match interface.role {
                Role::Web => b"public",
                Role::Service | Role::Worker => b"private",
            }),
            FieldId::AsgTag if interface.role == Role::Web => line.text(b"web%2Dasg"),
            FieldId::InterfaceType if self.is_gateway() => line.text(b"nat_gateway"),
            FieldId::ResourceType => line.text(b"TransitGateway"),
            FieldId::TgwId => {
                line.identifier(b"tgw-", self.network.identifier(IdentifierKind::Gateway, 0));
            }
            FieldId::TgwAttachmentId => self.write_attachment(interface, line),
            _ => line.byte(b'-'),
        }
    }

    fn is_gateway(&self) -> bool {
        self.flow.interface == InterfaceIndex::NAT_GATEWAY
    }

    fn packet_source(&self) -> Addr {
        match self.flow.via {
            Via::Source(addr) => addr,
            Via::Direct | Via::Destination(_) => self.flow.src,
        }
    }

    fn packet_destination(&self) -> Addr {
        match self.flow.via {
            Via::Destination(addr) => addr,
            Via::Direct | Via::Source(_) => self.flow.dst,
        }
    }

    fn source_interface(&self) -> Option<InterfaceIndex> {
        if self.flow.egress { Some(self.flow.interface) } else { self.flow.peer }
    }

    fn destination_interface(&self) -> Option<InterfaceIndex> {
        if self.flow.egress { self.flow.peer } else { Some(self.flow.interface) }
    }

    /// 1 inside the VPC, 4 to a peered VPC, 8 through the internet gateway.
    fn write_traffic_path(&self, line: &mut LineText) {
        let same_vpc = |peer| self.network.interface(peer).vpc == self.interface.vpc;
        line.byte(match self.flow.peer {
            _ if !self.flow.egress => b'-',
            Some(peer) if same_vpc(peer) => b'1',
            Some(_) => b'4',
            None => b'8',
        });
    }

    fn encryption_status(&self) -> u8 {
        let port_443 = self.flow.src_port == 443 || self.flow.dst_port == 443;
        match self.flow.protocol {
            ICMP | ICMP_V6 => b'0',
            _ if self.flow.peer.is_some() => b'1',
            TCP if port_443 => b'2',
            _ => b'0',
        }
    }

    fn write_vpc(&self, interface: &Interface, line: &mut LineText) {
        let number = self.network.identifier(IdentifierKind::Vpc, interface.vpc.into());
        line.identifier(b"vpc-", number);
    }

    fn write_subnet(&self, interface: &Interface, line: &mut LineText) {
        let subnet = u64::from(interface.vpc) << 8 | u64::from(interface.subnet);
        line.identifier(b"subnet-", self.network.identifier(IdentifierKind::Subnet, subnet));
    }

    fn write_attachment(&self, interface: &Interface, line: &mut LineText) {
        let number = self.network.identifier(IdentifierKind::Attachment, interface.vpc.into());
        line.identifier(b"tgw-attach-", number);
    }

    fn write_next_hop(&self, field: FieldId, line: &mut LineText) {
        let Some(peer) = self.flow.peer else { return line.byte(b'-') };
        let interface = self.network.interface(peer);
        match field {
            FieldId::NextHopInterfaceId => line.text(&interface.name),
            FieldId::NextHopSubnetId => self.write_subnet(interface, line),
            FieldId::NextHopAzId => write_zone(interface, line),
            FieldId::NextHopVpcId => self.write_vpc(interface, line),
            _ if peer == InterfaceIndex::NAT_GATEWAY => line.text(b"nat_gateway"),
            _ => line.byte(b'-'),
        }
    }

    fn write_gateway_end(&self, field: FieldId, end: Option<InterfaceIndex>, line: &mut LineText) {
        let Some(end) = end else { return line.byte(b'-') };
        let interface = self.network.interface(end);
        match field {
            FieldId::TgwSrcVpcAccountId | FieldId::TgwDstVpcAccountId => {
                line.text(self.network.account_bytes(end));
            }
            FieldId::TgwSrcVpcId | FieldId::TgwDstVpcId => self.write_vpc(interface, line),
            FieldId::TgwSrcSubnetId | FieldId::TgwDstSubnetId => {
                self.write_subnet(interface, line);
            }
            FieldId::TgwSrcEni | FieldId::TgwDstEni => line.text(&interface.name),
            _ => write_zone(interface, line),
        }
    }

    /// Services and one in four workers run in a container service.
    fn write_ecs(&self, field: FieldId, line: &mut LineText) {
        let interface = self.interface;
        let runs_tasks = interface.role == Role::Service || interface.hash.is_multiple_of(4);
        if !runs_tasks || self.is_gateway() {
            return line.byte(b'-');
        }
        let cluster = u64::from(interface.vpc);
        let service = interface.hash >> 40 & 63;
        let arn = |kind: &[u8], line: &mut LineText| {
            line.text(b"arn:aws:ecs:us-east-1:");
            line.text(self.network.account_bytes(self.flow.interface));
            line.byte(b':');
            line.text(kind);
            line.byte(b'/');
        };
        let numbered = |name: &[u8], number: u64, line: &mut LineText| {
            line.text(name);
            line.number(number);
        };
        let hex = |salt: u64, words: u64, line: &mut LineText| {
            (0..words).for_each(|word| line.hex16(mix2(interface.hash, salt + word)));
        };
        match field {
            FieldId::EcsClusterArn => {
                arn(b"cluster", line);
                numbered(b"main-", cluster, line);
            }
            FieldId::EcsClusterName => numbered(b"main-", cluster, line),
            FieldId::EcsContainerInstanceArn => {
                arn(b"container-instance", line);
                numbered(b"main-", cluster, line);
                line.byte(b'/');
                hex(100, 2, line);
            }
            FieldId::EcsContainerInstanceId => hex(100, 2, line),
            FieldId::EcsContainerId => hex(200, 4, line),
            FieldId::EcsServiceName => numbered(b"service-", service, line),
            FieldId::EcsTaskDefinitionArn => {
                arn(b"task-definition", line);
                numbered(b"service-", service, line);
                numbered(b":", 1 + (interface.hash >> 50 & 31), line);
            }
            FieldId::EcsTaskArn => {
                arn(b"task", line);
                numbered(b"main-", cluster, line);
                line.byte(b'/');
                hex(300, 2, line);
            }
            _ => hex(300, 2, line),
        }
    }
}

fn write_zone(interface: &Interface, line: &mut LineText) {
    line.text(b"use1-az");
    line.byte(b'1' + interface.subnet % 6);
}

/// The AWS service whose published ranges hold the address, for one internet address in eight.
fn aws_service(addr: Addr) -> &'static [u8] {
    let bits = addr.bits();
    let folded = u64::try_from((bits ^ (bits >> 64)) & u128::from(u64::MAX));
    let hash = mix2(0x0061_7773, folded.expect("masked to 64 bits"));
    let inside = addr.as_v4().is_some_and(|bits| bits >> 24 == 10) || bits >> 96 == 0x2600_1f14;
    if inside || !hash.is_multiple_of(8) {
        return b"-";
    }
    pick_by_hash(&AWS_SERVICES, mix(hash))
}

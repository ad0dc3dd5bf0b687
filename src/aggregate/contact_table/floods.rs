//! Floods of spoofed sources, many times what the table has room for: slow scanners stay in it.

use std::collections::VecDeque;

use super::*;
use crate::aggregate::Vantage;
use crate::codec::{Decoder, Encoder};
use crate::record::Action;

const BYTES_MAX: usize = 8 << 20;
const ROWS: u64 = 2_000_000;
const SOURCES: u64 = 1_000_000;
const SECONDS: u64 = 1200;
/// Panes in which scanners become known.
const WARM_UP_PANES: i64 = 3;

const SCANNER: Addr = Addr::v4(0xcb00_7109);
const SWEEPER: Addr = Addr::v4(0xcb00_710a);
const GUESSER: Addr = Addr::v4(0xcb00_710b);
const SERVER: Addr = Addr::v4(0x0a00_0105);
const FLOODED: Addr = Addr::v4(0x0a00_0106);

/// The same random number for the same number.
fn random(number: u64) -> u64 {
    spread(number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(7))
}

fn below(number: u64, limit: u64) -> u32 {
    u32::try_from((u128::from(random(number)) * u128::from(limit)) >> 64).unwrap()
}

fn port(number: u32) -> u16 {
    u16::try_from(number).unwrap()
}

fn row(src: Addr, dst: Addr, ports: (u16, u16), second: u64) -> ContactRow<'static> {
    let end = UnixSeconds(i64::try_from(second).unwrap());
    ContactRow {
        src,
        dst,
        src_port: ports.0,
        dst_port: ports.1,
        protocol: 6,
        packets: 1,
        bytes: 44,
        start: end,
        end,
        action: Action::Accept,
        tcp_flags: None,
        vantage: Vantage::Unknown,
        interface_id: Some(b"eni-1"),
        account_id: None,
        vpc_id: None,
        subnet_id: None,
    }
}

fn answer(to: &ContactRow<'static>) -> ContactRow<'static> {
    let (src, dst, src_port, dst_port) = (to.dst, to.src, to.dst_port, to.src_port);
    ContactRow { src, dst, src_port, dst_port, ..*to }
}

/// A random source, and its port.
fn source(number: u64) -> (Addr, u16) {
    let source = below(number, SOURCES);
    (Addr::v4(0x2000_0000 + source * 131), port(1024 + below(number + 1, 60_000)))
}

/// One probe after the other of three slow clients, by second.
fn probes(second: u64) -> Vec<ContactRow<'static>> {
    let number = u32::try_from(second / 45).unwrap();
    if second % 45 != 20 {
        return Vec::new();
    }
    let host = Addr::v4(0x0a00_2000 + number * 7);
    vec![
        row(SCANNER, SERVER, (50_000, port(number * 3 + 1)), second),
        row(SWEEPER, host, (50_001, 8080), second),
        row(GUESSER, SERVER, (port(40_000 + number), 22), second),
    ]
}

/// What became of a flood and the probes in it.
struct Outcome {
    /// Probes after the warm-up, and those of them that were handed over.
    probes: usize,
    probes_seen: usize,
    evicted_contacts: u64,
}

fn run(flood: impl Fn(u64, u64) -> Vec<ContactRow<'static>>) -> Outcome {
    let mut table = ContactTable::new(60, 3, BYTES_MAX);
    let mut alive = VecDeque::new();
    let mut outcome = Outcome { probes: 0, probes_seen: 0, evicted_contacts: 0 };
    let (mut rows_added, mut rows_seen) = (0, 0);
    let mut closed_until = 0;
    for second in 0..SECONDS {
        let mut rows = probes(second);
        if second >= 60 * u64::try_from(WARM_UP_PANES).unwrap() {
            outcome.probes += rows.len();
        }
        let numbers = second * ROWS / SECONDS..(second + 1) * ROWS / SECONDS;
        rows.extend(numbers.flat_map(|number| flood(number * 16, second)));
        for (number, row) in rows.iter().enumerate() {
            table.add_row(row);
            if number % 512 == 0 {
                let bytes = table.bytes() + table.bytes_handed_over();
                assert!(bytes <= BYTES_MAX, "{bytes} bytes in second {second}");
            }
        }
        rows_added += rows.len() as u64;
        let mut closed = Vec::new();
        if second >= closed_until + 180 {
            closed = table.close_until(UnixSeconds(i64::try_from(second - 120).unwrap()));
            closed_until += 60;
        }
        if second == SECONDS - 1 {
            closed.extend(table.close_all());
        }
        for pane in closed {
            for (_, key, contact) in pane.contacts.iter() {
                let (forward, back) = (contact.forward().0, contact.back().0);
                rows_seen += u64::from(forward.flows) + u64::from(back.flows);
                let is_probe = [SCANNER, SWEEPER, GUESSER].contains(&key.client);
                if is_probe && pane.pane.0 >= WARM_UP_PANES {
                    outcome.probes_seen += forward.flows as usize;
                }
            }
            rows_seen += pane.refused_rows;
            outcome.evicted_contacts += pane.evicted_contacts;
            alive.push_back(pane);
            if alive.len() > 3 {
                alive.pop_front();
            }
        }
    }
    assert_eq!(rows_added, rows_seen, "what left is counted");
    assert_eq!(table.evicted_contacts(), outcome.evicted_contacts);
    outcome
}

fn check(flood: impl Fn(u64, u64) -> Vec<ContactRow<'static>>) {
    let Outcome { probes, probes_seen, evicted_contacts } = run(flood);
    assert!(evicted_contacts > 500_000, "{evicted_contacts}");
    assert!(probes_seen * 100 >= probes * 95, "{probes_seen} of {probes}");
}

#[test]
fn one_service() {
    check(|number, second| {
        let (addr, from) = source(number);
        vec![row(addr, FLOODED, (from, 443), second)]
    });
}

#[test]
fn random_ports_of_one_server() {
    check(|number, second| {
        let (addr, from) = source(number);
        vec![row(addr, FLOODED, (from, port(below(number + 2, 65_536))), second)]
    });
}

#[test]
fn random_servers_and_ports() {
    check(|number, second| {
        let (addr, from) = source(number);
        let server = Addr::v4(0x0a01_0000 + below(number + 3, 65_536));
        vec![row(addr, server, (from, port(below(number + 2, 65_536))), second)]
    });
}

#[test]
fn rejected() {
    check(|number, second| {
        let (addr, from) = source(number);
        let server = Addr::v4(0x0a01_0000 + below(number + 3, 65_536));
        let to = port(below(number + 2, 65_536));
        let action = Action::Reject;
        vec![ContactRow { action, ..row(addr, server, (from, to), second) }]
    });
}

#[test]
fn answered_by_resets() {
    check(|number, second| {
        let (addr, from) = source(number);
        let server = Addr::v4(0x0a01_0000 + below(number + 3, 65_536));
        let there = ContactRow {
            tcp_flags: Some(2),
            ..row(addr, server, (from, port(below(number + 2, 1024))), second)
        };
        vec![there, ContactRow { tcp_flags: Some(4), ..answer(&there) }]
    });
}

#[test]
fn answered_and_answers_without_requests() {
    check(|number, second| {
        let (addr, from) = source(number);
        let there = ContactRow { tcp_flags: Some(2), ..row(addr, FLOODED, (from, 443), second) };
        let inside = Addr::v4(0x0a01_0000 + below(number + 3, 65_536));
        let stray = row(Addr::v4(0x0808_0808), inside, (443, from), second);
        let answered = Some(18);
        vec![
            there,
            ContactRow { tcp_flags: answered, ..answer(&there) },
            ContactRow { tcp_flags: answered, ..stray },
        ]
    });
}

/// What left, and what of clients is remembered, goes on after a save as without.
#[test]
fn a_flooded_table_that_was_saved_goes_on_as_before() {
    let flood = |number: u64, second: u64| {
        let (addr, from) = source(number);
        let server = Addr::v4(0x0a01_0000 + below(number + 3, 65_536));
        row(addr, server, (from, port(below(number + 2, 65_536))), second)
    };
    let mut table = ContactTable::new(60, 3, BYTES_MAX);
    for number in 0..200_000 {
        table.add_row(&flood(number * 16, number / 2000));
    }
    let mut out = Encoder::default();
    table.save(&mut out);
    let bytes = out.into_bytes();
    let mut loaded = ContactTable::load(60, BYTES_MAX, &mut Decoder::new(&bytes)).unwrap();
    let seen = |table: &mut ContactTable| -> Vec<_> {
        for number in 200_000..400_000 {
            table.add_row(&flood(number * 16, number / 2000));
        }
        let keys = |pane: PaneContacts| -> Vec<_> {
            pane.contacts.iter().map(|(number, key, _)| (pane.pane, number, key)).collect()
        };
        table.close_all().into_iter().flat_map(keys).collect()
    };
    assert_eq!(seen(&mut table), seen(&mut loaded));
    assert!(table.evicted_contacts() > 100_000);
    assert_eq!(table.evicted_contacts(), loaded.evicted_contacts());
}

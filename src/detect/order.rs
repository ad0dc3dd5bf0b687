//! Sorting of contacts: by one integer each where both ends are IPv4, the few others by comparison.

use super::pane::Tried;

/// Sorts by client, server, protocol and port.
pub(super) fn by_key(tried: &mut Vec<Tried>) {
    let key = |tried: &Tried| (tried.client, tried.server, tried.protocol, tried.port);
    let packed = |tried: &Tried| {
        let (client, server) = (tried.client.as_v4()?, tried.server.as_v4()?);
        let service = u64::from(tried.protocol) << 16 | u64::from(tried.port);
        Some(u128::from(client) << 88 | u128::from(server) << 56 | u128::from(service << 32))
    };
    let order = sorted(tried, packed, key);
    *tried = order.into_iter().map(|position| tried[position]).collect();
}

/// Positions of `items` in the order of `key`. `packed` says the same in the upper 96 bits of a number, for
/// items that come one after the other without those that have no such number.
pub(super) fn sorted<T, K: Ord>(
    items: &[T],
    packed: impl Fn(&T) -> Option<u128>,
    key: impl Fn(&T) -> K,
) -> Vec<usize> {
    let mut narrow: Vec<u128> = Vec::with_capacity(items.len());
    let mut wide: Vec<usize> = Vec::new();
    for (position, item) in items.iter().enumerate() {
        match packed(item) {
            Some(packed) => narrow.push(packed | position as u128),
            None => wide.push(position),
        }
    }
    narrow.sort_unstable();
    wide.sort_unstable_by_key(|position| key(&items[*position]));

    let mut order = Vec::with_capacity(items.len());
    let mut wide = wide.into_iter().peekable();
    for position in narrow.into_iter().map(position_of) {
        while let Some(before) = wide.next_if(|wide| key(&items[*wide]) < key(&items[position])) {
            order.push(before);
        }
        order.push(position);
    }
    order.extend(wide);
    order
}

/// The lower 32 bits.
fn position_of(packed: u128) -> usize {
    (packed & 0xffff_ffff) as usize
}

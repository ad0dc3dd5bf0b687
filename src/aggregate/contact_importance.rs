//! Which contacts give way when memory is short: those that can hardly matter for detection.
//!
//! What a detector looks for is a client that tries many ports of a server, or one port of many servers, or
//! logs in again and again. So a contact is worth as much as its client has got about: the greater number of
//! distinct ports that the client tried at this server (of sessions, for ports where one logs in), or of
//! distinct servers that it tried this port of. A sketch remembers both over panes, also of contacts that
//! had to leave: for each client and server, and each client and port, a set of 16 bits in three cells of
//! one cache line; bits that all three have were set by this one, or by chance, which is rare while few
//! cells are used. When many are, a new generation begins; the one before still counts, and what goes on is
//! carried over.
//!
//! By falling value ([`rank`](Ranks)):
//! 1. contacts by the number of ports or servers, 4 and more;
//! 2. those with fewer, whose service and server few others of this kind talk to;
//! 3. those with fewer, whose service or server is popular: the target of a flood, or a busy web server;
//! 4. what a single client has beyond a 64th of all contacts: a part of them tells as much of it.
//!
//! Of contacts that are worth the same those stay whose clients have the lowest hashes, so that what is
//! known of a client is all there or all gone. A slow scanner in a flood of one-time sources is thus told
//! from them when it comes for the second time, wherever those go and whether they are answered or not.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::contact::ContactKey;
use super::contact_set::ContactSet;
use super::contact_slot::{ContactSlot, NarrowKey};
use super::table::{Mixer, spread};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::simd;

/// Ports where every session is a try of its own.
const LOGIN_PORTS: [u16; 10] = [21, 22, 23, 445, 1433, 3306, 3389, 5432, 5900, 5985];

/// Up to this many distinct ports or servers a client may be a one-time source that chance made look busy.
const FEW: u8 = 3;

/// The rank of what a client has beyond its share.
const BEYOND_SHARE: u8 = 0;

/// How many contacts are hashed before the first one is looked up.
const LOOK_UPS_AHEAD: usize = 32;

/// Ranks: 0 beyond the share, 1 to 3 few and popular, 4 to 19 by number.
const RANK_COUNT: usize = 20;

const CELLS: usize = 32;

/// The cells among which one key has three.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Line([u16; CELLS]);

impl Line {
    /// What all cells of the key have.
    #[inline]
    const fn get(&self, [a, b, c]: [usize; 3]) -> u16 {
        self.0[a] & self.0[b] & self.0[c]
    }

    #[inline]
    const fn set(&mut self, [a, b, c]: [usize; 3], bits: u16) {
        self.0[a] |= bits;
        self.0[b] |= bits;
        self.0[c] |= bits;
    }
}

/// A key of the sketch, and what is noted for it.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    line: usize,
    cells: [usize; 3],
    bit: u16,
}

/// What is remembered of clients.
#[derive(Debug)]
pub(super) struct Importance {
    mixer: Mixer,
    now: Vec<Line>,
    before: Vec<Line>,
    /// Bits that the generation `now` got.
    noted: usize,
}

/// The worth of the contacts of some sets, in the order of sets and numbers.
pub(super) struct Ranks {
    ranks: Vec<u8>,
    /// Bytes of the contacts of each rank.
    bytes: [u64; RANK_COUNT],
}

/// What has to leave: ranks below one, and part of that one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// `None` if everything stays.
    rank: Option<u8>,
    /// From this place on.
    place: usize,
}

impl Cut {
    /// Whether a contact stays; its place is asked for if the rank doesn't say it.
    #[inline]
    pub(super) fn keeps(&self, rank: u8, place: impl FnOnce() -> usize) -> bool {
        match self.rank {
            Some(cut) if rank == cut => place() < self.place,
            Some(cut) => rank > cut,
            None => true,
        }
    }
}

/// Bits of the places of contacts within their rank.
const PLACE_BITS: u32 = 12;

/// Told from the seed of tables.
const SEED: u64 = 0x1f3d_5b79_97b5_d3f1;

impl Importance {
    /// A memory without any client, of at most `bytes_max` bytes but at least 4 KiB.
    pub(super) fn new(seed: u64, bytes_max: usize) -> Self {
        let line_count = (bytes_max / 2 / size_of::<Line>()).max(32);
        let lines = || {
            let mut lines = vec![Line([0; CELLS]); line_count];
            simd::advise_huge_pages(&mut lines);
            lines
        };
        Self { mixer: Mixer::with_seed(seed ^ SEED), now: lines(), before: lines(), noted: 0 }
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        (self.now.capacity() + self.before.capacity()) * size_of::<Line>()
    }

    /// Writes the memory.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.plain(&self.now);
        out.plain(&self.before);
        out.count(self.noted);
    }

    /// Reads the memory of a table with this `seed`.
    ///
    /// # Errors
    /// If the bytes are no such memory.
    pub(super) fn load(seed: u64, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (now, before) = (from.plain::<Line>()?, from.plain::<Line>()?);
        let noted = usize::try_from(from.u64()?).unwrap_or(usize::MAX);
        if now.is_empty() || now.len() != before.len() {
            return Err(DecodeError::Invalid("memory of clients"));
        }
        Ok(Self { mixer: Mixer::with_seed(seed ^ SEED), now, before, noted })
    }

    /// Notes the contacts of these sets, and says what they are worth.
    pub(super) fn ranks(&mut self, sets: &[&ContactSet]) -> Ranks {
        let count: usize = sets.iter().map(|set| set.len()).sum();
        let mut crowds = Crowds::for_count(count);
        let mut ranks = Vec::with_capacity(count);
        for set in sets {
            self.note_all(set);
        }
        for set in sets {
            self.score_all(set, &mut crowds, &mut ranks);
        }
        let mut bytes = [0; RANK_COUNT];
        let slots = sets.iter().flat_map(|set| set.slots().map(move |slot| (set, slot)));
        for (rank, (set, slot)) in ranks.iter_mut().zip(slots) {
            *rank = crowds.rank(*rank, &self.parties(set, slot));
            bytes[usize::from(*rank)] += slot.weight() as u64;
        }
        Ranks { ranks, bytes }
    }

    /// Where a contact stands among those of its rank: lower ones stay.
    pub(super) fn place_in_rank(&self, set: &ContactSet, slot: &ContactSlot, rank: u8) -> usize {
        let Parties { client, server, port, .. } = self.parties(set, slot);
        // One client may have all that is beyond its share.
        let what = if rank == BEYOND_SHARE { server ^ u64::from(port) << 48 } else { 0 };
        (self.mixer.two_words(client, what) >> (64 - PLACE_BITS)) as usize
    }

    /// What has to leave so that about `bytes` bytes of the sets with these ranks stay.
    pub(super) fn cut(&self, sets: &[&ContactSet], ranks: &Ranks, bytes: u64) -> Cut {
        let (rank, mut left) = ranks.cut(bytes);
        let mut bytes_by_place = vec![0_u64; 1 << PLACE_BITS];
        let slots = sets.iter().flat_map(|set| set.slots().map(move |slot| (set, slot)));
        for (_, (set, slot)) in ranks.iter().zip(slots).filter(|(other, _)| Some(*other) == rank) {
            let place = self.place_in_rank(set, slot, rank.unwrap_or(0));
            bytes_by_place[place] += slot.weight() as u64;
        }
        // Those that stayed before have low places, so the places have to be counted.
        let place = bytes_by_place.iter().position(|bytes| {
            let fits = *bytes <= left;
            left = left.saturating_sub(*bytes);
            !fits
        });
        Cut { rank, place: place.unwrap_or(bytes_by_place.len()) }
    }

    fn note_all(&mut self, set: &ContactSet) {
        let mut slots = set.slots();
        let mut ahead = Vec::with_capacity(LOOK_UPS_AHEAD);
        loop {
            ahead.extend(slots.by_ref().take(LOOK_UPS_AHEAD).map(|slot| self.notes(set, slot)));
            if ahead.is_empty() {
                return;
            }
            ahead.iter().for_each(|notes| self.prefetch(notes));
            ahead.drain(..).flatten().for_each(|note| self.note(note));
        }
    }

    fn score_all(&self, set: &ContactSet, crowds: &mut Crowds, scores: &mut Vec<u8>) {
        let mut slots = set.slots();
        let mut ahead = Vec::with_capacity(LOOK_UPS_AHEAD);
        loop {
            let next = slots.by_ref().take(LOOK_UPS_AHEAD);
            ahead.extend(next.map(|slot| (slot, self.notes(set, slot))));
            if ahead.is_empty() {
                return;
            }
            ahead.iter().for_each(|(_, notes)| self.prefetch(notes));
            for (slot, notes) in ahead.drain(..) {
                let [pair, fan] = notes.map(|note| self.score(note));
                let score = pair.max(fan);
                crowds.count(score, &self.parties(set, slot));
                scores.push(score);
            }
        }
    }

    #[inline]
    fn prefetch(&self, notes: &[Note; 2]) {
        for note in notes {
            simd::prefetch(&self.now, note.line);
            simd::prefetch(&self.before, note.line);
        }
    }

    fn note(&mut self, Note { line, cells, bit }: Note) {
        let now = self.now[line].get(cells);
        let before = self.before[line].get(cells);
        // One bit alone is worth nothing more than this contact says itself.
        let carried = if before.count_ones() > 1 { before } else { 0 };
        let bits = (bit | carried) & !now;
        if bits != 0 {
            self.now[line].set(cells, bits);
            self.noted += bits.count_ones() as usize;
            // Three bits in `CELLS` cells of 16: chance gives a key a tenth of a bit.
            if self.noted >= self.now.len() * CELLS {
                std::mem::swap(&mut self.now, &mut self.before);
                self.now.fill(Line([0; CELLS]));
                self.noted = 0;
            }
        }
    }

    /// How many distinct things were noted for a key, up to 16; one at least for what was.
    #[inline]
    fn score(&self, Note { line, cells, bit }: Note) -> u8 {
        let bits = self.now[line].get(cells) | self.before[line].get(cells) | bit;
        u8::try_from(bits.count_ones()).expect("there are 16 bits")
    }

    /// What a contact notes for its client and server, and for its client and port.
    #[inline]
    fn notes(&self, set: &ContactSet, slot: &ContactSlot) -> [Note; 2] {
        let Parties { client, server, port, protocol } = self.parties(set, slot);
        let session = if LOGIN_PORTS.contains(&port) { set.first_port(slot) } else { 0 };
        let protocol = u64::from(protocol);
        let pair = self.mixer.two_words(client, server.rotate_left(24) ^ protocol);
        let fan = self.mixer.two_words(!client, protocol << 16 | u64::from(port));
        let what = spread(u64::from(port) << 16 | u64::from(session));
        [self.key(pair, what), self.key(fan, spread(server))]
    }

    #[expect(clippy::cast_possible_truncation, reason = "a high half below the number of lines")]
    #[inline]
    fn key(&self, hash: u64, what: u64) -> Note {
        let line = ((u128::from(hash) * self.now.len() as u128) >> 64) as usize;
        let cell = |shift: u32| (hash >> shift) as usize % CELLS;
        Note { line, cells: [cell(0), cell(5), cell(10)], bit: 1 << (what >> 60) }
    }

    #[inline]
    fn parties(&self, set: &ContactSet, slot: &ContactSlot) -> Parties {
        match slot.narrow_key() {
            Some(NarrowKey { client, server, port, protocol }) => {
                Parties { client: client.into(), server: server.into(), port, protocol }
            }
            None => self.wide_parties(&set.key_of(slot)),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
    fn wide_parties(&self, key: &ContactKey) -> Parties {
        let word = |bits: u128| self.mixer.two_words((bits >> 64) as u64, bits as u64);
        let (client, server) = (word(key.client.bits()), word(key.server.bits()));
        Parties { client, server, port: key.port, protocol: key.protocol }
    }
}

/// Who a contact is between; addresses as words that hashes are made of.
struct Parties {
    client: u64,
    server: u64,
    port: u16,
    protocol: u8,
}

/// How many contacts clients have, and how many of little worth services and servers, by short hashes.
struct Crowds {
    /// Length of each list less 1: a power of two less 1.
    mask: usize,
    clients: Vec<u32>,
    services: Vec<u32>,
    servers: Vec<u32>,
    /// From so many on, a service or server is popular.
    popular_min: u32,
    /// The share of a client.
    share: u32,
}

impl Crowds {
    fn for_count(count: usize) -> Self {
        let len = (count / 8).next_power_of_two().clamp(1 << 10, 1 << 16);
        let part = |divisor: usize, min: u32| {
            u32::try_from(count / divisor).map_or(u32::MAX, |part| part.max(min))
        };
        Self {
            mask: len - 1,
            clients: vec![0; len],
            services: vec![0; len],
            servers: vec![0; len],
            popular_min: part(4096, 64),
            share: part(64, 256),
        }
    }

    fn count(&mut self, score: u8, parties: &Parties) {
        if score <= FEW {
            let [_, service, server] = self.places(parties);
            self.services[service] += 1;
            self.servers[server] += 1;
        }
    }

    /// The rank of a contact. Contacts come in order, so that a client's oldest ones are in its share.
    fn rank(&mut self, score: u8, parties: &Parties) -> u8 {
        let [client, service, server] = self.places(parties);
        self.clients[client] += 1;
        if self.clients[client] > self.share {
            return BEYOND_SHARE;
        }
        if score > FEW {
            return score + FEW;
        }
        if self.services[service].max(self.servers[server]) >= self.popular_min {
            score
        } else {
            score + FEW
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to the lists' length")]
    #[inline]
    fn places(&self, parties: &Parties) -> [usize; 3] {
        let service = u64::from(parties.protocol) << 16 | u64::from(parties.port);
        let place = |word: u64| spread(word) as usize & self.mask;
        [place(parties.client), place(parties.server ^ service << 32), place(!parties.server)]
    }
}

impl Ranks {
    /// Bytes of all contacts.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// The rank of which only a part stays so that `bytes` bytes stay, if there is one, and how much of it.
    fn cut(&self, bytes: u64) -> (Option<u8>, u64) {
        let mut left = bytes;
        for rank in (0..RANK_COUNT).rev() {
            let of_rank = self.bytes[rank];
            if of_rank > left {
                return (Some(u8::try_from(rank).expect("there are few ranks")), left);
            }
            left -= of_rank;
        }
        (None, left)
    }

    /// The ranks, in the order of sets and numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = u8> {
        self.ranks.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worth_least_leaves_first() {
        let mut bytes = [0; RANK_COUNT];
        (bytes[0], bytes[4], bytes[19]) = (640, 6400, 64);
        let ranks = Ranks { ranks: Vec::new(), bytes };
        assert_eq!(ranks.cut(10_000), (None, 10_000 - 7104));
        assert_eq!(ranks.cut(6464 + 320), (Some(0), 320));
        assert_eq!(ranks.cut(64 + 1600), (Some(4), 1600));
        assert_eq!(ranks.cut(32), (Some(19), 32));
    }

    #[test]
    fn chance_makes_few_clients_look_busy() {
        let mut importance = Importance::new(1, 1 << 17);
        let one_time = |number: u64| importance.mixer.word(number);
        let keys: Vec<u64> = (0..100_000).map(one_time).collect();
        let scanner = importance.mixer.word(u64::MAX);
        for (number, keys) in (0_u64..).zip(keys.chunks(1000)) {
            importance.note(importance.key(scanner, spread(number)));
            for key in keys {
                let what = spread(*key);
                importance.note(importance.key(*key, what));
            }
            if number > 24 {
                assert!(importance.score(importance.key(scanner, spread(number))) > 8);
            }
        }
        let newest = &keys[99_000..];
        let busy = newest
            .iter()
            .filter(|key| importance.score(importance.key(**key, spread(**key))) > 2)
            .count();
        assert!(busy < 50, "{busy} of 1000");
    }
}

//! Totals, talkers and contacts: state that shards own by key.

mod blocks;
mod client_ports;
mod contact;
mod contact_beside;
mod contact_hash;
mod contact_importance;
mod contact_index;
mod contact_pane;
mod contact_plain;
mod contact_row;
mod contact_set;
mod contact_slot;
mod contact_spares;
mod contact_table;
mod contact_view;
mod initiator;
mod key;
mod lateness;
mod place;
mod route;
mod row_bits;
mod table;
mod top;
mod totals;
mod watermark;

pub(crate) use blocks::Blocks;
pub use client_ports::{CLIENT_PORTS_MAX, ClientPorts};
pub use contact::{Contact, ContactKey, Side, Tally};
pub use contact_pane::PaneContacts;
pub use contact_row::{CONTACT_COLUMNS, ContactRow, Vantage};
pub use contact_set::ContactSet;
pub use contact_table::{CONTACT_BYTES_DEFAULT, ContactTable, pair_hash};
pub use contact_view::{ContactView, Half};
pub(crate) use initiator::{TCP_RST, TCP_SYN};
pub use key::AnyColumn;
pub use lateness::{LATENESS_SECONDS_MAX, LATENESS_SECONDS_MIN, Lateness};
pub use place::{Place, PlaceIds, PlaceNames};
pub use route::{RoutedBatch, Router, RowLists, Rows, pair_owner};
pub use table::{Counts, DenseTable, Key, Mixer, NumberSet, SumTable, Upsert, WideKey};
pub use top::{Heir, Metric, TopAnswer, TopRow, TopSet, TopSpec, merge_answers};
pub use totals::{Sums, TOTALS_COLUMNS, Totals};
pub use watermark::{InputFate, TimeSettings, Watermarks};


//! JSON around flow log lines: where one document ends, the fast way through CloudWatch Logs
//! envelopes, and the slow way through everything else.

mod envelope;
mod node;
mod row;
mod split;
mod text;

pub(super) use envelope::{EnvelopeEnd, read_envelope};
pub(super) use node::Node;
pub(super) use row::{LayoutMemo, row_of};
pub(super) use split::{Piece, Splitter, is_separator};
pub(super) use text::DIRECT_START;

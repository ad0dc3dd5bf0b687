//! Totals, talkers and contacts: state that shards own by key.

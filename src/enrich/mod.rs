//! What the operator knows of the network, attached to records and findings.

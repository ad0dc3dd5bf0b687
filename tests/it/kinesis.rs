//! Tests of kinesis.

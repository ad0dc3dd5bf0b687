//! Field texts become the values that the standard library gives them.
#![no_main]

use std::net::IpAddr;

use flowgauge::net::Addr;
use flowgauge::record::value;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|token: &[u8]| {
    let text = std::str::from_utf8(token).ok();
    let addr = text.and_then(|text| text.parse::<IpAddr>().ok()).map(Addr::from);
    assert_eq!(value::addr(token).ok(), addr);
    // The standard library also takes a sign.
    let digits = text.filter(|text| !text.starts_with('+'));
    assert_eq!(value::number_u64(token).ok(), digits.and_then(|text| text.parse().ok()));
});

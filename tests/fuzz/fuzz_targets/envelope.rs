//! CloudWatch Logs envelopes: members in any order, any text inside, one byte changed.
#![no_main]

use flowgauge_fuzz::check_record;
use libfuzzer_sys::fuzz_target;

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => quoted.push(plain),
        }
    }
    quoted + "\""
}

fuzz_target!(|input: (u8, &str, &str, u16, u8)| {
    let (order, message, other, at, byte) = input;
    let (message, other) = (quoted(message), quoted(other));
    let mut members = [
        "\"messageType\":\"DATA_MESSAGE\"".to_owned(),
        format!("\"logGroup\":{other}"),
        format!("\"logEvents\":[{{\"id\":\"1\",\"message\":{message}}},{{\"message\":{other}}}]"),
        "\"subscriptionFilters\":[\"a\"]".to_owned(),
    ];
    members.rotate_left(usize::from(order) % 4);
    let mut data = format!("{{{}}}", members.join(",")).into_bytes();
    if byte != 0 {
        let at = usize::from(at) % data.len();
        data[at] = byte;
    }
    check_record(data);
});

//! Messages of a queue: no panic; every object has a bucket, a key and a size, and nothing is silently nothing.
#![no_main]

use flowgauge::source::s3::read_notification;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &str| {
    let told = read_notification(body);
    assert!(told.objects.iter().all(|object| object.size > 0 && object.name().starts_with("s3://")));
    if serde_json::from_str::<serde_json::Value>(body).is_err() {
        assert!(told.objects.is_empty() && told.fault.is_some());
    }
});

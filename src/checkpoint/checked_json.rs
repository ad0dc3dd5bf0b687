//! Small files of JSON that can be damaged: a form, the content, and a checksum of it.
//!
//! ```text
//! {"form":1,"content": … ,"crc32":"9ae0daaf"}
//! ```
//!
//! The checksum is over the content as this version writes it, so that what it can't read again as it was is refused.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::RefusalReason;

/// The form that is written.
const FORM: u16 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checked<T> {
    form: u16,
    // What cursors were called at first.
    #[serde(alias = "sinks")]
    content: T,
    crc32: String,
}

/// The file of a content, which must have a JSON form.
pub(super) fn to_bytes<T: Serialize>(content: &T) -> Vec<u8> {
    let file = Checked { form: FORM, crc32: checksum(content), content };
    let mut bytes = serde_json::to_vec(&file).expect("names and numbers have a JSON form");
    bytes.push(b'\n');
    bytes
}

/// The content of a file.
///
/// # Errors
/// If the bytes are not such a file, or one of a newer form.
pub(super) fn from_bytes<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
) -> Result<T, RefusalReason> {
    #[derive(Deserialize)]
    struct Form {
        form: u16,
    }
    let damaged = || RefusalReason::Damaged { what: "content".to_owned() };
    let Form { form } = serde_json::from_slice(bytes).map_err(|_| damaged())?;
    if form > FORM {
        return Err(RefusalReason::Newer { found: form, newest: FORM });
    }
    let file: Checked<T> = serde_json::from_slice(bytes).map_err(|_| damaged())?;
    if form != FORM || file.crc32 != checksum(&file.content) {
        return Err(damaged());
    }
    Ok(file.content)
}

fn checksum<T: Serialize>(content: &T) -> String {
    let bytes = serde_json::to_vec(content).expect("names and numbers have a JSON form");
    format!("{:08x}", crc32fast::hash(&bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Content = BTreeMap<String, u64>;

    #[test]
    fn any_changed_bit_is_refused() {
        let content = Content::from([("a \"b\"".to_owned(), u64::MAX), ("c".to_owned(), 0)]);
        let sound = to_bytes(&content);
        assert_eq!(from_bytes::<Content>(&sound).unwrap(), content);
        for at in 0..sound.len() - 1 {
            for bit in 0..8 {
                let mut changed = sound.clone();
                changed[at] ^= 1 << bit;
                assert!(from_bytes::<Content>(&changed).is_err(), "bit {bit} of byte {at}");
            }
            assert!(from_bytes::<Content>(&sound[..at]).is_err());
        }
    }

    #[test]
    fn other_forms_are_told() {
        let error = from_bytes::<Content>(b"{\"form\":2,\"anything\":[]}").unwrap_err();
        assert!(error.to_string().contains("its form is 2 and this version reads up to 1"));
        let first = b"{\"form\":1,\"sinks\":{\"a\":1},\"crc32\":\"CRC\"}";
        let text = String::from_utf8_lossy(first)
            .replace("CRC", &checksum(&Content::from([("a".to_owned(), 1)])));
        assert_eq!(from_bytes::<Content>(text.as_bytes()).unwrap()["a"], 1);
    }
}

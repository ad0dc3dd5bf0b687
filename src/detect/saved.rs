//! How keys, addresses and times of detectors stand in saved state.

use std::collections::BTreeMap;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// What can be part of saved state.
pub(super) trait Saved: Sized {
    /// The fewest bytes that one takes.
    const BYTES_MIN: usize;

    fn save(&self, out: &mut Encoder);

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError>;
}

impl Saved for () {
    const BYTES_MIN: usize = 0;

    fn save(&self, _: &mut Encoder) {}

    fn load(_: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Saved for u8 {
    const BYTES_MIN: usize = 1;

    fn save(&self, out: &mut Encoder) {
        out.u8(*self);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.u8()
    }
}

impl Saved for u16 {
    const BYTES_MIN: usize = 2;

    fn save(&self, out: &mut Encoder) {
        out.u16(*self);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.u16()
    }
}

impl Saved for String {
    const BYTES_MIN: usize = 8;

    fn save(&self, out: &mut Encoder) {
        out.text(self);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(from.text()?.to_owned())
    }
}

impl Saved for u64 {
    const BYTES_MIN: usize = 8;

    fn save(&self, out: &mut Encoder) {
        out.u64(*self);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.u64()
    }
}

impl Saved for Addr {
    const BYTES_MIN: usize = 16;

    fn save(&self, out: &mut Encoder) {
        out.u128(self.bits());
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self::v6(from.u128()?))
    }
}

impl Saved for PaneIndex {
    const BYTES_MIN: usize = 8;

    fn save(&self, out: &mut Encoder) {
        out.i64(self.0);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self(from.i64()?))
    }
}

impl Saved for UnixSeconds {
    const BYTES_MIN: usize = 8;

    fn save(&self, out: &mut Encoder) {
        out.i64(self.0);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self(from.i64()?))
    }
}

impl<A: Saved, B: Saved> Saved for (A, B) {
    const BYTES_MIN: usize = A::BYTES_MIN + B::BYTES_MIN;

    fn save(&self, out: &mut Encoder) {
        self.0.save(out);
        self.1.save(out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok((A::load(from)?, B::load(from)?))
    }
}

impl<T: Saved> Saved for Option<T> {
    const BYTES_MIN: usize = 1;

    fn save(&self, out: &mut Encoder) {
        out.option(self.as_ref(), |out, value| value.save(out));
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.option(T::load)
    }
}

impl<K: Saved + Ord, V: Saved> Saved for BTreeMap<K, V> {
    const BYTES_MIN: usize = 8;

    fn save(&self, out: &mut Encoder) {
        out.count(self.len());
        for (key, value) in self {
            key.save(out);
            value.save(out);
        }
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = from.count(K::BYTES_MIN + V::BYTES_MIN)?;
        let mut map = Self::new();
        for _ in 0..count {
            let key = K::load(from)?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::Invalid("order of keys"));
            }
            map.insert(key, V::load(from)?);
        }
        Ok(map)
    }
}

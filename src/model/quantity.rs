//! Quantities as people write them: `2Gi`, `500ms`, `10Gbit/s`. They are compared by value, so `8Gi` and `8192Mi` are the
//! same, and printed in the largest unit that is exact.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}; write it like {example}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
    example: &'static str,
}

const BINARY: &[(&str, u64)] =
    &[("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
const DECIMAL: &[(&str, u64)] = &[
    ("E", 1_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];
const BITS: &[(&str, u64)] =
    &[("Tbit/s", 1_000_000_000_000), ("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)];
const BYTE_RATES: &[(&str, u64)] = &[
    ("GiB/s", 8 << 30),
    ("MiB/s", 8 << 20),
    ("KiB/s", 8 << 10),
    ("GB/s", 8_000_000_000),
    ("MB/s", 8_000_000),
    ("kB/s", 8_000),
    ("B/s", 8),
];
const TIMES: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Splits `12.5Gi` into the number, in millionths, and the unit. No sign, no exponent, no blanks.
fn split(text: &str) -> Option<(u128, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 6 || number.ends_with('.') {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let mut micro = whole.checked_mul(1_000_000)?;
    if !fraction.is_empty() {
        let scale = 10u128.pow(6 - u32::try_from(fraction.len()).ok()?);
        micro = micro.checked_add(fraction.parse::<u128>().ok()?.checked_mul(scale)?)?;
    }
    Some((micro, unit))
}

/// `micro` millionths of `factor`, when that is whole and fits.
fn scale(micro: u128, factor: u64) -> Option<u64> {
    let product = micro.checked_mul(u128::from(factor))?;
    if product % 1_000_000 != 0 {
        return None;
    }
    u64::try_from(product / 1_000_000).ok()
}

fn parse_with(text: &str, units: &[&[(&str, u64)]], bare: Option<u64>) -> Option<u64> {
    let (micro, unit) = split(text)?;
    if unit.is_empty() {
        return scale(micro, bare?);
    }
    let factor = units.iter().flat_map(|u| u.iter()).find(|(name, _)| *name == unit)?.1;
    scale(micro, factor)
}

/// Writes `value` in the largest unit that divides it.
fn print_with(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    if value == 0 {
        return f.write_str(zero);
    }
    match units.iter().find(|(_, factor)| value.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{}{unit}", value / factor),
        None => write!(f, "{value}"),
    }
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $what:literal, $example:literal, $pattern:literal, $integers:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct V;
                impl Visitor<'_> for V {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!($what, " like ", $example))
                    }
                    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<$name, E> {
                        v.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<$name, E> {
                        if $integers { Ok($name(v)) } else { Err(E::custom(QuantityError {
                            text: v.to_string(), what: $what, example: $example })) }
                    }
                }
                d.deserialize_any(V).map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                if $integers {
                    json_schema!({"type": ["string", "integer"], "pattern": $pattern, "minimum": 0,
                        "description": concat!($what, ", like ", $example)})
                } else {
                    json_schema!({"type": "string", "pattern": $pattern, "description": concat!($what, ", like ", $example)})
                }
            }
        }
    };
}

quantity!(
    /// A size in bytes: `20Gi`, `512Mi`, `1.5G`, or a bare number of bytes.
    Bytes, "a size", "`20Gi` or `512Mi`", "^[0-9]+(\\.[0-9]{1,6})?([KMGTPE]i|[kMGTPE])?$", true
);
quantity!(
    /// A length of time, in milliseconds: `500ms`, `30s`, `1h30m`.
    Span, "a duration", "`500ms`, `30s` or `1h30m`", "^([0-9]+(\\.[0-9]{1,6})?(d|h|ms|m|s))+$", false
);
quantity!(
    /// A data rate, in bits a second: `10Gbit/s`, `100MiB/s`.
    Rate, "a data rate", "`10Gbit/s` or `100MiB/s`", "^[0-9]+(\\.[0-9]{1,6})?([kMGT]?bit|([KMG]i|[kMG])?B)/s$", false
);

impl Bytes {
    /// Whole mebibytes, rounded up.
    pub fn mebibytes(self) -> u64 {
        self.0.div_ceil(1 << 20)
    }

    /// Whole kibibytes, rounded up; libvirt's unit for memory.
    pub fn kibibytes(self) -> u64 {
        self.0.div_ceil(1 << 10)
    }
}

impl Span {
    /// As the standard library's duration.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    /// A span of whole seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(n * 1000)
    }
}

impl Rate {
    /// Bytes a second.
    pub fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }

    /// Whole mebibytes a second, at least 1; libvirt's unit for migration bandwidth (`virDomainMigrate3`, MiB/s).
    pub fn mebibytes_per_second(self) -> u64 {
        (self.0 / (8 << 20)).max(1)
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse_with(text, &[BINARY, DECIMAL], Some(1)).map(Self).ok_or_else(|| QuantityError {
            text: text.into(),
            what: "a size",
            example: "`20Gi` or `512Mi`",
        })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_with(f, self.0, BINARY, "0")
    }
}

impl FromStr for Span {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError { text: text.into(), what: "a duration", example: "`500ms`, `30s` or `1h30m`" };
        let mut rest = text;
        let mut total = 0u64;
        while !rest.is_empty() {
            let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
            let unit = rest[number..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| number + i);
            let part = parse_with(&rest[..unit], &[TIMES], None).ok_or_else(error)?;
            total = total.checked_add(part).ok_or_else(error)?;
            rest = &rest[unit..];
        }
        if text.is_empty() { Err(error()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, factor) in TIMES {
            if rest / factor > 0 {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl FromStr for Rate {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse_with(text, &[BITS, BYTE_RATES], None).map(Self).ok_or_else(|| QuantityError {
            text: text.into(),
            what: "a data rate",
            example: "`10Gbit/s` or `100MiB/s`",
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_with(f, self.0, BITS, "0bit/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_are_equal_however_written() {
        assert_eq!("8Gi".parse::<Bytes>(), "8192Mi".parse());
        assert_eq!("1.5Gi".parse::<Bytes>().unwrap().to_string(), "1536Mi");
        assert_eq!("4096".parse::<Bytes>().unwrap().to_string(), "4Ki");
        assert_eq!("1h30m".parse::<Span>(), "90m".parse());
        assert_eq!("90m".parse::<Span>().unwrap().to_string(), "1h30m");
        assert_eq!("500ms".parse::<Span>().unwrap().0, 500);
        assert_eq!("10Gbit/s".parse::<Rate>(), "1250MB/s".parse());
        assert_eq!("10Gbit/s".parse::<Rate>().unwrap().to_string(), "10Gbit/s");
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        for bad in
            ["", "8gi", "8 GB", "-1Gi", "1e3", "Gi", ".5Gi", "5.", "0.1", "99999999999999999999", "17179869184Gi"]
        {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
        for bad in ["", "5", "5x", "m", "-5m", "1.m"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
        for bad in ["", "5", "10Gbps", "10 Gbit/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<Span>("5").is_err());
        assert_eq!(serde_json::from_str::<Bytes>("1024").unwrap(), Bytes(1024));
    }
}

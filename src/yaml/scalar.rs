//! What a plain scalar is, by YAML 1.2's core schema (section 10.3.2), except that a decimal number with a leading zero
//! stays text. Nothing is ever rounded.

use serde_json::{Number, Value};

/// What a plain scalar is.
pub(super) enum Plain {
    Text,
    Value(Value),
    /// A number that cannot be kept as it is, and why.
    NotExact(&'static str),
}

/// Types a plain scalar by the core schema.
pub(super) fn resolve(text: &str) -> Plain {
    match text.as_bytes().first() {
        None => return Plain::Value(Value::Null),
        // Everything else begins with none of these: the common case of a word costs one look.
        Some(b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'0'..=b'9' | b'+' | b'-' | b'.') => {}
        Some(_) => return Plain::Text,
    }
    match text {
        "~" | "null" | "Null" | "NULL" => return Plain::Value(Value::Null),
        "true" | "True" | "TRUE" => return Plain::Value(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Plain::Value(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Plain::NotExact("is not a number that can be kept");
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Plain::NotExact("is not a number");
    }
    let based = |digits: &str, base: u32| match u64::from_str_radix(digits, base) {
        Ok(n) => Plain::Value(n.into()),
        Err(_) => Plain::NotExact("does not fit into 64 bits"),
    };
    if let Some(digits) = text.strip_prefix("0x").filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return based(digits, 16);
    }
    if let Some(digits) =
        text.strip_prefix("0o").filter(|d| !d.is_empty() && d.bytes().all(|b| (b'0'..=b'7').contains(&b)))
    {
        return based(digits, 8);
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        if unsigned.len() > 1 && unsigned.starts_with('0') {
            return Plain::Text;
        }
        let number = text.strip_prefix('+').unwrap_or(text);
        return match (number.parse::<u64>(), number.parse::<i64>()) {
            (Ok(n), _) => Plain::Value(n.into()),
            (_, Ok(n)) => Plain::Value(n.into()),
            _ => Plain::NotExact("does not fit into 64 bits"),
        };
    }
    if is_float(unsigned) {
        return match text.parse::<f64>().ok().filter(|n| n.is_finite()).and_then(Number::from_f64) {
            Some(n) => Plain::Value(Value::Number(n)),
            None => Plain::NotExact("is too large for a number"),
        };
    }
    Plain::Text
}

/// The core schema's floats, without sign, infinities and NaN: `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(i) => (&text[..i], Some(&text[i + 1..])),
        None => (text, None),
    };
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    fits && exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    })
}

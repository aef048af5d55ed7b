//! When credentials end, where they say so themselves: a token that is a JWT (`exp`), a client certificate (`notAfter`).
//! Nothing is verified here: that is the API server's matter.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// When a bearer token ends. None for one that is no JWT, or has no end.
pub(super) fn token(token: &str) -> Option<Timestamp> {
    let mut parts = token.trim().split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let claims: serde_json::Value = serde_json::from_slice(&base64(claims)?).ok()?;
    Timestamp::from_second(claims.get("exp")?.as_i64()?).ok()
}

/// When the first certificate of a PEM text ends.
pub(super) fn certificate(pem: &[u8]) -> Option<Timestamp> {
    not_after(blocks(pem, "CERTIFICATE").first()?)
}

/// The contents of the blocks with this label in a PEM text. A block that is damaged is left out.
pub(super) fn blocks(pem: &[u8], label: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(pem);
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let contents = text.split(&begin).skip(1).filter_map(|part| part.split_once(&end));
    contents.filter_map(|(content, _)| base64(content)).collect()
}

/// Base64 in either alphabet, with or without padding; blank space is skipped.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0u32);
    for c in text.bytes().filter(|c| !c.is_ascii_whitespace() && *c != b'=') {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(six)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

/// In the alphabet and with the padding that Kubernetes wants.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| chunk.get(i).copied().unwrap_or(0));
        let bits = u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c);
        for i in 0..4 {
            let six = (bits >> (18 - 6 * i) & 63) as usize;
            text.push(if i <= chunk.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    text
}

/// One element of DER: its tag, its content, and what follows it (X.690, 8.1; lengths up to four bytes).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x84 => {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = after;
            bytes.iter().fold(0usize, |n, b| n << 8 | usize::from(*b))
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// `notAfter` of an X.509 certificate (RFC 5280, 4.1): version, serial number, algorithm and issuer stand before it.
fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    // The version is the only one of them that may be missing.
    if rest.first() == Some(&0xa0) {
        rest = element(rest)?.2;
    }
    for _ in ["serialNumber", "signature", "issuer"] {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    // UTCTime has two digits for the year: 50 and later are of the last century.
    let text = match tag {
        0x17 => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        _ => text.to_owned(),
    };
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i16>().ok();
    let small = |from: usize, to: usize| i8::try_from(number(from, to)?).ok();
    let at = DateTime::new(number(0, 4)?, small(4, 6)?, small(6, 8)?, small(8, 10)?, small(10, 12)?, small(12, 14)?, 0);
    at.ok()?.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_goes_both_ways() {
        for text in ["", "f", "fo", "foo", "foob", "fooba", "foobar"] {
            assert_eq!(base64(&to_base64(text.as_bytes())).unwrap(), text.as_bytes());
        }
        assert_eq!(to_base64(b"fooba"), "Zm9vYmE=");
        assert_eq!(base64("Zm9v\nYmE").unwrap(), b"fooba");
        assert_eq!(base64("--__").unwrap(), [0xfb, 0xef, 0xff]);
        assert_eq!(base64("a!b"), None);
    }

    #[test]
    fn a_jwt_says_when_it_ends_and_other_tokens_do_not() {
        let claims = to_base64(br#"{"exp":1700000000,"sub":"x"}"#).replace('=', "");
        assert_eq!(token(&format!("e30.{claims}.sig\n")).unwrap().as_second(), 1_700_000_000);
        for other in ["", "opaque", "a.b", "a.b.c", "a.e30.c", "a.b.c.d"] {
            assert_eq!(token(other), None, "{other}");
        }
    }

    #[test]
    fn a_certificate_says_when_it_ends_and_damaged_ones_do_not() {
        let bytes = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
        let validity = |end: &[u8]| bytes(0x30, &[bytes(0x17, b"250101000000Z"), end.to_vec()].concat());
        let make = |end: &[u8]| {
            let parts = [bytes(0xa0, &[2, 1, 2]), bytes(2, &[1]), bytes(0x30, &[]), bytes(0x30, &[]), validity(end)];
            bytes(0x30, &bytes(0x30, &parts.concat()))
        };
        let utc = make(&bytes(0x17, b"260102030405Z"));
        assert_eq!(not_after(&utc).unwrap().to_string(), "2026-01-02T03:04:05Z");
        let general = make(&bytes(0x18, b"20510102030405Z"));
        assert_eq!(not_after(&general).unwrap().to_string(), "2051-01-02T03:04:05Z");
        for cut in 0..utc.len() {
            assert_eq!(not_after(&utc[..cut]), None, "{cut}");
        }
        let pem = format!("x\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", to_base64(&utc));
        assert!(certificate(pem.as_bytes()).is_some());
        assert_eq!(certificate(b"nothing"), None);
    }
}

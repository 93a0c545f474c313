//! How sizes and times are written: `64MiB`, `512KiB`, `1000`; `20s`, `50ms`, `7 days`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// A size in bytes, with or without a unit.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    const HINT: &str = "a size looks like 64MiB, 512KiB or 1000";
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: usize = number.parse().map_err(|_| HINT)?;
    let unit: usize = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(HINT.into()),
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| "it is too large".into())
}

/// A length of time, with its unit. Days have 24 hours here.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "a time looks like 20s, 50ms, 1h 30m or 7 days";
    let span: Span = text.trim().parse().map_err(|_| HINT)?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| HINT)?;
    Duration::try_from(duration).map_err(|_| "it is negative".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("1000", 1000),
            ("512KiB", 512 << 10),
            ("64 MiB", 64 << 20),
            (" 2GiB ", 2 << 30),
            ("5MB", 5_000_000),
            ("7B", 7),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "MiB",
            "-1",
            "1.5MiB",
            "64Mib",
            "64m",
            "0x10",
            "1e6",
            "99999999999999999999",
            "99999999999GiB",
        ] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        for (text, millis) in [
            ("20s", 20_000),
            ("50ms", 50),
            ("7 days", 604_800_000),
            ("1 day", 86_400_000),
            ("1h 30m", 5_400_000),
            ("2 weeks", 1_209_600_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "20", "-20s", "20s ago", "1 month", "soon", "s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}

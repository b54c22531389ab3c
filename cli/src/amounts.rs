//! Sizes and durations as people type them. Pure.

/// Bytes: `1048576`, `512MiB`, `4GiB`, `4g`, `100MB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is not a size; as 512MiB or 4GiB"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => {
            return Err(format!(
                "{unit:?} is not a unit of size; one of KiB MiB GiB TiB kB MB GB TB"
            ));
        }
    };
    number.checked_mul(factor).ok_or_else(|| format!("{text} is more bytes than can be counted"))
}

/// Bytes as people read them: `4GiB`, `512MiB`, `1000`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit =
        units.iter().find(|(shift, _)| bytes >> shift != 0 && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(|| bytes.to_string(), |(shift, name)| format!("{}{name}", bytes >> shift))
}

/// Milliseconds: `90` (seconds), `90s`, `1500ms`, `5m`, `2h`, `1d`, `1h30m`, `00:01:30`, `1.02:03:04` (days first).
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let wrong = || format!("{text:?} is not a duration; as 90, 90s, 5m, 1h30m or 00:01:30");
    let ms = if text.contains(':') { clock_ms(text) } else { units_ms(text) };
    match ms.ok_or_else(wrong)? {
        0 => Err(format!("{text:?} is no time at all; give at least 1ms")),
        ms => Ok(ms),
    }
}

fn units_ms(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1000);
    }
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match &rest[..end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[end..];
    }
    Some(total)
}

/// `[days.]hours:minutes[:seconds[.fraction]]`, as PowerShell writes a time span.
fn clock_ms(text: &str) -> Option<u64> {
    let mut parts = text.split(':');
    let (first, minutes) = (parts.next()?, parts.next()?);
    let seconds = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return None;
    }
    let (days, hours) = first.split_once('.').unwrap_or(("0", first));
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let number = |part: &str, max: u64| part.parse().ok().filter(|n: &u64| *n <= max);
    let fraction: String = fraction.chars().chain("00".chars()).take(3).collect();
    let ms =
        ((number(days, 1_000_000)? * 24 + number(hours, 23)?) * 60 + number(minutes, 59)?) * 60_000;
    Some(ms + number(seconds, 59)? * 1000 + number(&fraction, 999)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_type_them() {
        let cases = [
            ("0", 0),
            ("1048576", 1 << 20),
            ("4GiB", 4 << 30),
            ("4g", 4 << 30),
            ("512 MiB", 512 << 20),
            ("100MB", 100_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "GiB", "-1", "4 gigs", "99999999999TiB", "1.5GiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes_text(4 << 30), "4GiB");
        assert_eq!(bytes_text(1000), "1000");
        assert_eq!(bytes_text(0), "0");
    }

    #[test]
    fn durations_are_read_as_people_type_them() {
        let cases = [
            ("90", 90_000),
            ("90s", 90_000),
            ("1500ms", 1500),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("00:01:30", 90_000),
            ("00:05", 300_000),
            ("1.02:03:04", 93_784_000),
            ("00:00:01.5", 1500),
        ];
        for (text, expected) in cases {
            assert_eq!(duration_ms(text), Ok(expected), "{text}");
        }
        for text in
            ["", "0", "-5", "5x", "m", "00:00:00", "1:2:3:4", "00:61:00", "99999999999999999999"]
        {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }
}

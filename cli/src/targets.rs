//! Addresses as people type them: `host`, `host:port`, `10.0.0.11:7801`, `[::1]:7801`, `http://host:7801/`. Pure.

/// `host:port` for each of the names given, in order, each once.
pub(crate) fn list(names: &[String], default_port: u16) -> Result<Vec<String>, String> {
    let mut targets = Vec::new();
    for name in
        names.iter().flat_map(|names| names.split(',')).map(str::trim).filter(|n| !n.is_empty())
    {
        let target = one(name, default_port)?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

/// `host:port` of one name.
pub(crate) fn one(name: &str, default_port: u16) -> Result<String, String> {
    let wrong = |why: &str| {
        format!("{name:?} is not an address: {why}; as 10.0.0.11 or 10.0.0.11:{default_port}")
    };
    if name.starts_with("https://") {
        return Err(wrong("TLS is not spoken here"));
    }
    let bare = name.strip_prefix("http://").unwrap_or(name).trim_end_matches('/');
    let (host, port) = split(bare).ok_or_else(|| wrong("brackets are for IPv6, as [::1]:7801"))?;
    let port = match port {
        None => default_port,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port != 0 => port,
            _ => return Err(wrong(&format!("{port:?} is not a port, 1 to 65535"))),
        },
    };
    if host.is_empty() {
        return Err(wrong("it names no host"));
    }
    let in_name = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    if !host.chars().all(in_name) {
        return Err(wrong("a host is letters, digits, dots and hyphens"));
    }
    if is_unspecified(host) {
        let why = "means every address, which nobody can be reached at";
        return Err(format!("{host} {why}; name the machine: 127.0.0.1, 10.0.0.11"));
    }
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Host and port of `host`, `host:port`, `[v6]`, `[v6]:port` and a bare `v6`.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match text.matches(':').count() {
        1 => text.split_once(':').map(|(host, port)| (host, Some(port))),
        _ => Some((text, None)),
    }
}

fn is_unspecified(host: &str) -> bool {
    // `::0` and `0:0:0:0:0:0:0:0` parse to the same address as `::`; `0` is what C libraries take for 0.0.0.0.
    host == "0" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_type_them() {
        let cases = [
            ("10.0.0.11", "10.0.0.11:7801"),
            ("10.0.0.11:7802", "10.0.0.11:7802"),
            ("localhost", "localhost:7801"),
            ("http://a.example:7801/", "a.example:7801"),
            ("::1", "[::1]:7801"),
            ("[::1]:9", "[::1]:9"),
            ("[fe80::1]", "[fe80::1]:7801"),
        ];
        for (text, expected) in cases {
            assert_eq!(one(text, 7801).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_address_is_no_target() {
        for text in [
            "0.0.0.0",
            "0.0.0.0:7801",
            "::",
            "::0",
            "[::]:7801",
            "0:0:0:0:0:0:0:0",
            "http://0.0.0.0",
            "0",
        ] {
            let error = one(text, 7801).unwrap_err();
            assert!(error.contains("name the machine"), "{text}: {error}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in [
            "",
            ":7801",
            "a:0",
            "a:70000",
            "a:x",
            "a b",
            "https://a",
            "[::1",
            "[::1]x",
            "a/b",
            "a;rm",
        ] {
            let error = one(text, 7801).unwrap_err();
            assert!(error.contains("10.0.0.11"), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_may_have_commas_blanks_and_repeats() {
        let names = ["a, b".to_owned(), "a:7801".to_owned(), String::new()];
        assert_eq!(list(&names, 7801).unwrap(), ["a:7801", "b:7801"]);
    }
}

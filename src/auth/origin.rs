//! The origins that may use the gateway from a browser, compared as a whole and exactly.
//!
//! Look-alikes (`https://example.org.evil.test`, `https://evilexample.org`), `null` and `*` never
//! match, because nothing here matches by parts.

use std::collections::HashSet;

/// Origins as a browser writes them: `scheme://host` and a port unless it is the scheme's own.
#[derive(Clone, Debug, Default)]
pub struct Origins(HashSet<Box<str>>);

impl Origins {
    /// Takes a list of origins, or says what is wrong with each that is none.
    pub fn parse<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<Origins, Vec<String>> {
        let mut origins = HashSet::new();
        let mut faults = Vec::new();
        for text in list {
            match check(text) {
                Ok(()) => {
                    origins.insert(Box::from(text));
                }
                Err(fault) => faults.push(format!("{text:?} is no origin: {fault}")),
            }
        }
        if faults.is_empty() {
            Ok(Origins(origins))
        } else {
            Err(faults)
        }
    }

    /// Whether the value of an `Origin` header is one of these.
    pub fn allow(&self, origin: &str) -> bool {
        self.0.contains(origin)
    }
}

/// Browsers send one spelling of an origin. Another one in the configuration would never match,
/// so it is refused with the reason.
fn check(text: &str) -> Result<(), &'static str> {
    if text == "*" || text == "null" {
        return Err("it would let every page in, list the origins themselves");
    }
    let (scheme, authority) = text
        .split_once("://")
        .ok_or("it looks like https://app.example.org")?;
    if scheme.is_empty()
        || !scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
    {
        return Err("its scheme is not in lower case");
    }
    if authority.ends_with('/') || authority.contains('/') {
        return Err("it has no path and no slash at its end");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if let Some(port) = port {
        let number: u16 = port.parse().map_err(|_| "its port is no number")?;
        if port.starts_with('0') || port.starts_with('+') {
            return Err("its port is no number");
        }
        if (scheme, number) == ("https", 443) || (scheme, number) == ("http", 80) {
            return Err("browsers leave out the scheme's own port");
        }
    }
    let bare = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => {
            return v6
                .parse::<std::net::Ipv6Addr>()
                .map(|_| ())
                .map_err(|_| "its host is no IPv6 address");
        }
        None => host,
    };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    if bare.is_empty() || !bare.bytes().all(allowed) {
        return Err("its host is made of lower-case letters (others in punycode), digits, - and .");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_origin_matches() {
        let origins = Origins::parse([
            "https://app.example.org",
            "http://localhost:5173",
            "http://[::1]:80801",
        ])
        .unwrap_err();
        assert_eq!(origins.len(), 1, "{origins:?}");
        let origins = Origins::parse([
            "https://app.example.org",
            "http://localhost:5173",
            "http://[::1]:8081",
            "capacitor://localhost",
        ])
        .unwrap();
        assert!(origins.allow("https://app.example.org"));
        assert!(origins.allow("http://localhost:5173"));
        for other in [
            "null",
            "",
            "*",
            "http://app.example.org",
            "https://app.example.org.evil.test",
            "https://evilapp.example.org",
            "https://app.example.org:444",
            "https://app.example.org/",
            "https://APP.example.org",
            "https://example.org",
        ] {
            assert!(!origins.allow(other), "{other}");
        }
    }

    #[test]
    fn what_no_browser_would_send_is_refused() {
        for bad in [
            "*",
            "null",
            "",
            "example.org",
            "https://",
            "https://*.example.org",
            "https://example.org/",
            "https://example.org/path",
            "https://Example.org",
            "HTTPS://example.org",
            "https://example.org:443",
            "http://example.org:80",
            "https://example.org:0443",
            "https://example.org:+444",
            "https://example.org:",
            "https://user@example.org",
            "https://exämple.org",
            "https://[::g]",
        ] {
            assert!(Origins::parse([bad]).is_err(), "{bad:?}");
        }
    }
}

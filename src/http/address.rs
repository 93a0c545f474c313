//! Whose request it is by address, when proxies stand in between.
//!
//! Every proxy appends to `X-Forwarded-For` the address that it saw. Only what trusted proxies
//! wrote can be believed, so the list is read from its end, and the first address that is not a
//! trusted proxy's is the client. What stands before it may be anyone's invention.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::HeaderMap;
use ipnet::IpNet;

/// The address of the client behind `peer`, which is the other end of the connection.
pub fn client(peer: IpAddr, request: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut address = peer.to_canonical();
    let mut hops = request
        .get_all("x-forwarded-for")
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    while is_trusted(&address) {
        // A trusted proxy that wrote no address, or nothing, is the last one known.
        match hops.next().and_then(hop) {
            Some(next) => address = next,
            None => break,
        }
    }
    address
}

/// The key of per-address limits: an IPv6 client owns a /64 and can take any address of it.
pub fn limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

/// One entry of the list: an address, which some proxies write with a port or in brackets.
fn hop(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn found(peer: &str, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    const PROXIES: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

    #[test]
    fn nobody_is_believed_by_default() {
        assert_eq!(found("192.0.2.1", &["198.51.100.9"], &[]), "192.0.2.1");
        assert_eq!(found("192.0.2.1", &["198.51.100.9"], &PROXIES), "192.0.2.1");
        assert_eq!(found("::ffff:192.0.2.1", &[], &[]), "192.0.2.1");
    }

    #[test]
    fn the_right_most_untrusted_address_is_the_client() {
        let behind = |lines: &[&str]| found("10.0.0.1", lines, &PROXIES);
        assert_eq!(behind(&["192.0.2.1"]), "192.0.2.1");
        assert_eq!(behind(&["6.6.6.6, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(
            behind(&["6.6.6.6, 192.0.2.1, 10.1.1.1 ,fd00::5"]),
            "192.0.2.1"
        );
        assert_eq!(behind(&["6.6.6.6", "192.0.2.1", "10.1.1.1"]), "192.0.2.1");
        assert_eq!(behind(&["192.0.2.1:4711"]), "192.0.2.1");
        assert_eq!(behind(&["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(behind(&["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(behind(&["::ffff:192.0.2.1"]), "192.0.2.1");
        assert_eq!(
            found("::ffff:10.0.0.1", &["192.0.2.1"], &PROXIES),
            "192.0.2.1"
        );
    }

    #[test]
    fn where_the_list_says_nothing_the_last_known_address_counts() {
        let behind = |lines: &[&str]| found("10.0.0.1", lines, &PROXIES);
        assert_eq!(behind(&[]), "10.0.0.1");
        assert_eq!(behind(&[""]), "10.0.0.1");
        assert_eq!(behind(&["192.0.2.1, unknown"]), "10.0.0.1");
        assert_eq!(behind(&["192.0.2.1, unknown, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(behind(&["10.3.3.3, 10.2.2.2"]), "10.3.3.3");
    }

    #[test]
    fn a_household_is_one_address() {
        let key = |text: &str| limit_key(text.parse().unwrap()).to_string();
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(key("2001:db8:1:2:ffff::1"), "2001:db8:1:2::");
        assert_eq!(key("2001:db8:1:3::1"), "2001:db8:1:3::");
        assert_eq!(key("192.0.2.1"), "192.0.2.1");
        assert_eq!(key("::ffff:192.0.2.1"), "192.0.2.1");
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_changes_its_address(invented in "[0-9a-f.:, \\[\\]x]{0,60}") {
            let line = format!("{invented}, 192.0.2.1, 10.9.9.9");
            prop_assert_eq!(found("10.0.0.1", &[&line], &PROXIES), "192.0.2.1");
        }
    }
}

//! Which of the credentials of a request counts.
//!
//! `Authorization: Bearer` beats a ticket beats a cookie. The others are then ignored, and the one
//! that counts never gives way to another or to nobody when it turns out bad: otherwise a request
//! would be answered in a name that its sender did not mean.

use super::origin::Origins;
use super::{Cause, Forbidden, Refusal};

/// The parts of a request that say who sent it. An absent header is `None`.
///
/// Whoever fills this in refuses a request with several `Authorization`, `Origin` or
/// `Sec-Fetch-Site` headers, and passes every line of `Cookie`, since HTTP/2 may split it.
#[derive(Clone, Debug, Default)]
pub struct Presented<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The query parameter `ticket`, where tickets serve.
    pub ticket: Option<&'a str>,
    /// The `Cookie` headers.
    pub cookies: Vec<&'a str>,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// The `Sec-Fetch-Site` header.
    pub fetch_site: Option<&'a str>,
    /// Whether the method is GET or HEAD.
    pub get: bool,
    /// Whether the query has a parameter by which others pass raw tokens.
    pub token_in_url: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chosen<'a> {
    Bearer(&'a str),
    Ticket(&'a str),
    Cookie(&'a str),
    Nothing,
}

/// Chooses, given the name of the cookie that carries tokens, if any does.
pub(crate) fn choose<'a>(
    presented: &Presented<'a>,
    cookie_name: Option<&str>,
    origins: &Origins,
) -> Result<Chosen<'a>, Refusal> {
    // URLs end in logs and histories: a token that was in one is no secret any more.
    if presented.token_in_url {
        return Err(Refusal::TokenInUrl);
    }
    if let Some(header) = presented.authorization {
        return Ok(Chosen::Bearer(bearer(header)?));
    }
    if let Some(ticket) = presented.ticket {
        return match presented.get {
            true => Ok(Chosen::Ticket(ticket)),
            false => Err(Refusal::Unauthorized(Cause::Malformed)),
        };
    }
    match cookie(&presented.cookies, cookie_name)? {
        Some(token) => {
            check_cookie_use(presented, origins)?;
            Ok(Chosen::Cookie(token))
        }
        None => Ok(Chosen::Nothing),
    }
}

fn bearer(header: &str) -> Result<&str, Refusal> {
    let malformed = Refusal::Unauthorized(Cause::Malformed);
    match header.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            match token.trim_start() {
                "" => Err(malformed),
                token => Ok(token),
            }
        }
        _ => Err(malformed),
    }
}

/// The value of the named cookie. A page on a sibling domain can add a second cookie of the same
/// name, and which one comes first is up to it: so two different ones are nobody's.
fn cookie<'a>(lines: &[&'a str], name: Option<&str>) -> Result<Option<&'a str>, Refusal> {
    let Some(name) = name else { return Ok(None) };
    let mut values = lines
        .iter()
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(own, _)| *own == name)
        .map(|(_, value)| value);
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        return Err(Refusal::Unauthorized(Cause::Ambiguous));
    }
    Ok(first)
}

/// A browser sends cookies along whoever wrote the page, so the page must be one that may.
/// Browsers name the origin of cross-origin requests; an EventSource of the same origin has none,
/// and then newer browsers say `same-origin`.
fn check_cookie_use(presented: &Presented<'_>, origins: &Origins) -> Result<(), Refusal> {
    if !presented.get {
        return Err(Refusal::Forbidden(Forbidden::CookieMethod));
    }
    let allowed = match (presented.origin, presented.fetch_site) {
        (Some(origin), _) => origins.allow(origin),
        (None, site) => site.is_none_or(|site| site == "same-origin"),
    };
    if allowed {
        Ok(())
    } else {
        Err(Refusal::Forbidden(Forbidden::CookieOrigin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Origins {
        Origins::parse(["https://app.example.org"]).unwrap()
    }

    fn chosen<'a>(presented: &Presented<'a>) -> Result<Chosen<'a>, Refusal> {
        choose(presented, Some("session"), &origins())
    }

    fn with_cookie(line: &str) -> Presented<'_> {
        Presented {
            cookies: vec![line],
            get: true,
            ..Presented::default()
        }
    }

    #[test]
    fn a_bearer_beats_a_ticket_beats_a_cookie() {
        let mut all = Presented {
            authorization: Some("Bearer a.b.c"),
            ticket: Some("ticket"),
            origin: Some("https://evil.test"),
            ..with_cookie("session=token")
        };
        assert_eq!(chosen(&all), Ok(Chosen::Bearer("a.b.c")));
        all.authorization = None;
        assert_eq!(chosen(&all), Ok(Chosen::Ticket("ticket")));
        all.ticket = None;
        all.origin = None;
        assert_eq!(chosen(&all), Ok(Chosen::Cookie("token")));
        all.cookies.clear();
        assert_eq!(chosen(&all), Ok(Chosen::Nothing));
    }

    #[test]
    fn a_bad_authorization_never_falls_back() {
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Basic dXNlcjpwYXNz",
            "Bearer\ta",
            "a.b.c",
            "BearerX a",
        ] {
            let presented = Presented {
                authorization: Some(bad),
                ticket: Some("ticket"),
                ..with_cookie("session=token")
            };
            assert_eq!(
                chosen(&presented),
                Err(Refusal::Unauthorized(Cause::Malformed)),
                "{bad:?}"
            );
        }
        let scheme = Presented {
            authorization: Some("bearer  a.b.c"),
            ..Presented::default()
        };
        assert_eq!(chosen(&scheme), Ok(Chosen::Bearer("a.b.c")));
    }

    #[test]
    fn a_token_in_the_url_is_refused_beside_any_credential() {
        let presented = Presented {
            authorization: Some("Bearer a.b.c"),
            token_in_url: true,
            ..Presented::default()
        };
        assert_eq!(chosen(&presented), Err(Refusal::TokenInUrl));
    }

    #[test]
    fn a_cookie_needs_an_allowed_page() {
        let forbidden = Err(Refusal::Forbidden(Forbidden::CookieOrigin));
        let fine = Ok(Chosen::Cookie("token"));
        let cases = [
            (None, None, &fine),
            (None, Some("same-origin"), &fine),
            (Some("https://app.example.org"), Some("cross-site"), &fine),
            (Some("https://app.example.org"), None, &fine),
            (None, Some("same-site"), &forbidden),
            (None, Some("cross-site"), &forbidden),
            (None, Some("none"), &forbidden),
            (None, Some(""), &forbidden),
            (Some("null"), None, &forbidden),
            (Some(""), Some("same-origin"), &forbidden),
            (Some("https://evil.test"), Some("same-origin"), &forbidden),
            (Some("https://app.example.org.evil.test"), None, &forbidden),
            (Some("http://app.example.org"), None, &forbidden),
        ];
        for (origin, fetch_site, expected) in cases {
            let presented = Presented {
                origin,
                fetch_site,
                ..with_cookie("session=token")
            };
            assert_eq!(&chosen(&presented), expected, "{origin:?} {fetch_site:?}");
        }
    }

    #[test]
    fn a_cookie_and_a_ticket_serve_get_only() {
        let mut post = with_cookie("session=token");
        post.get = false;
        assert_eq!(
            chosen(&post),
            Err(Refusal::Forbidden(Forbidden::CookieMethod))
        );
        post.ticket = Some("ticket");
        assert_eq!(chosen(&post), Err(Refusal::Unauthorized(Cause::Malformed)));
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_every_line() {
        for line in [
            "session=token",
            "a=b; session=token; c=d",
            "a;session=token",
            " session=token ",
        ] {
            assert_eq!(
                chosen(&with_cookie(line)),
                Ok(Chosen::Cookie("token")),
                "{line:?}"
            );
        }
        for line in [
            "",
            "xsession=token",
            "sessionx=token",
            "Session=token",
            "a=session=token",
            "session",
        ] {
            assert_eq!(chosen(&with_cookie(line)), Ok(Chosen::Nothing), "{line:?}");
        }
        let mut split = with_cookie("a=b");
        split.cookies.push("session=token");
        assert_eq!(chosen(&split), Ok(Chosen::Cookie("token")));
        assert_eq!(choose(&split, None, &origins()), Ok(Chosen::Nothing));
    }

    #[test]
    fn two_cookies_of_one_name_are_nobodys() {
        let ambiguous = Err(Refusal::Unauthorized(Cause::Ambiguous));
        assert_eq!(
            chosen(&with_cookie("session=mine; session=evil")),
            ambiguous
        );
        let mut split = with_cookie("session=mine");
        split.cookies.push("session=evil");
        assert_eq!(chosen(&split), ambiguous);
        let same = with_cookie("session=mine; session=mine");
        assert_eq!(chosen(&same), Ok(Chosen::Cookie("mine")));
    }
}

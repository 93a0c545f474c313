//! From what a request presents to an [`Identity`], or to a [`Refusal`].
//!
//! Pure: no I/O and no clock of its own. To the caller every refused credential looks alike; the
//! [`Cause`] is for the operator's log, holds nothing of the credential, and never travels back.

mod credentials;
mod identity;
mod key;
mod origin;
mod ticket;
mod token;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde_json::Value;

use crate::topic::{Pattern, Topic, check_tenant};
use credentials::Chosen;
use identity::Caller;
use ticket::{Grant, TicketKey};
use token::{Claims, Rules};

pub use credentials::Presented;
pub use identity::{Credential, Identity};
pub use key::{Keys, SECRET_BYTES_MIN};
pub use origin::Origins;
pub use ticket::{OPENS_FOR, TICKET_BYTES_MAX};
pub use token::{LEEWAY, TOKEN_BYTES_MAX};

/// What the operator decided about tokens. Plain data; [`Authority::new`] judges it.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {
    /// The keys of tokens; without any, only public topics can be read.
    pub keys: Option<Keys>,
    /// The audience that tokens must name.
    pub audience: Option<String>,
    /// The issuer that tokens must name.
    pub issuer: Option<String>,
    /// The cookie in which tokens are accepted.
    pub cookie: Option<String>,
    /// The origins of pages whose requests may use the cookie.
    pub origins: Origins,
    /// What may be read without a token.
    pub public_topics: Vec<Pattern>,
    /// Whether every token must name a tenant.
    pub tenants_required: bool,
    /// Where in a token the claims of tidings stand.
    pub claims: ClaimNames,
}

/// JSON pointers (RFC 6901) to the claims of tidings, since issuers differ in where they can put
/// them: `/topics`, `/app_metadata/topics`, `/https:~1~1example.org~1topics`.
#[derive(Clone, Debug)]
pub struct ClaimNames {
    /// Patterns that the caller may read beyond its own topic.
    pub topics: String,
    /// Patterns that the caller may publish to.
    pub publish: String,
    /// The tenant that the caller is confined to.
    pub tenant: String,
}

impl Default for ClaimNames {
    fn default() -> ClaimNames {
        ClaimNames {
            topics: "/topics".into(),
            publish: "/publish".into(),
            tenant: "/tenant".into(),
        }
    }
}

/// Decides who is calling.
#[derive(Debug)]
pub struct Authority {
    keys: Option<Keys>,
    rules: Rules,
    cookie: Option<String>,
    origins: Origins,
    public: Arc<[Pattern]>,
    tenants_required: bool,
    claims: ClaimNames,
    /// The shared key of tickets, once the database has been asked for it.
    tickets: OnceLock<TicketKey>,
}

/// A ticket and the time until which it opens streams.
#[derive(Debug)]
pub struct Ticket {
    /// The text for `?ticket=`.
    pub text: String,
    /// When it stops opening streams.
    pub opens_until: Timestamp,
}

impl Authority {
    /// Takes the settings, or says everything that is wrong with them together.
    pub fn new(settings: AuthSettings) -> Result<Authority, Vec<String>> {
        let faults = settings.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Authority {
            keys: settings.keys,
            rules: Rules {
                audience: settings.audience,
                issuer: settings.issuer,
            },
            cookie: settings.cookie,
            origins: settings.origins,
            public: settings.public_topics.into(),
            tenants_required: settings.tenants_required,
            claims: settings.claims,
            tickets: OnceLock::new(),
        })
    }

    /// Who presents this at the time `now`.
    pub fn identify(&self, presented: &Presented<'_>, now: Timestamp) -> Result<Identity, Refusal> {
        match credentials::choose(presented, self.cookie.as_deref(), &self.origins)? {
            Chosen::Bearer(token) => self.by_token(token, Credential::Bearer, now),
            Chosen::Cookie(token) => self.by_token(token, Credential::Cookie, now),
            Chosen::Ticket(ticket) => self.by_ticket(ticket, presented, now),
            Chosen::Nothing if self.public.is_empty() => Err(Refusal::Unauthorized(Cause::Missing)),
            Chosen::Nothing => Ok(Identity::anonymous(self.public.clone())),
        }
    }

    /// Sells a ticket for what a caller may read, to be used from `origin` when there is one.
    /// Only a bearer token buys one: otherwise tickets would renew themselves for ever.
    pub fn issue_ticket(
        &self,
        identity: &Identity,
        origin: Option<&str>,
        now: Timestamp,
    ) -> Result<Ticket, Refusal> {
        let caller = identity.caller();
        let (Credential::Bearer, Some(sub), Some(expires_at)) =
            (caller.credential, &caller.sub, caller.expires_at)
        else {
            return Err(Refusal::Unauthorized(Cause::Missing));
        };
        let key = self.tickets.get().ok_or(Refusal::TicketsUnavailable)?;
        let opens_until = now.saturating_add(OPENS_FOR).unwrap_or(Timestamp::MAX);
        // Tickets, like tokens, know whole seconds.
        let opens_until = Timestamp::from_second(opens_until.as_second()).unwrap_or(opens_until);
        let text = key.sign(&Grant {
            sub: sub.to_string(),
            tenant: caller.tenant.as_deref().map(String::from),
            topics: caller.read.iter().map(Pattern::to_string).collect(),
            origin: origin.map(String::from),
            opens_until: opens_until.as_second(),
            expires_at: expires_at.as_second(),
        });
        // Only an absurd Origin makes it longer than the token was.
        if text.len() > TICKET_BYTES_MAX {
            return Err(Refusal::Unauthorized(Cause::TooLong));
        }
        Ok(Ticket { text, opens_until })
    }

    /// Hands over the key of tickets when the database has told it. Later calls change nothing.
    pub fn accept_tickets(&self, key: &[u8; 32]) {
        let _ = self.tickets.set(TicketKey::new(key));
    }

    fn by_token(
        &self,
        token: &str,
        credential: Credential,
        now: Timestamp,
    ) -> Result<Identity, Refusal> {
        let keys = self.keys.as_ref().ok_or(Cause::UnknownKey)?;
        let claims = token::check(token, keys, &self.rules, now)?;
        Ok(self.admit(claims, credential)?)
    }

    /// Turns checked claims into an identity. A claim that is there but unreadable refuses the
    /// whole token: guessing what it meant could grant more than it did.
    fn admit(&self, claims: Claims, credential: Credential) -> Result<Identity, Cause> {
        let tenant = match claims.all.pointer(&self.claims.tenant) {
            None if self.tenants_required => return Err(Cause::NoTenant),
            None => None,
            Some(Value::String(tenant)) if check_tenant(tenant).is_ok() => Some(tenant.as_str()),
            Some(_) => return Err(Cause::BadClaim),
        };
        Ok(Identity::new(Caller {
            credential,
            own: Some(Topic::own(&claims.sub, tenant).map_err(|_| Cause::BadClaim)?),
            tenant: tenant.map(Box::from),
            read: patterns(claims.all.pointer(&self.claims.topics))?,
            publish: patterns(claims.all.pointer(&self.claims.publish))?,
            public: self.public.clone(),
            expires_at: Some(claims.expires_at),
            claims: claims.all.to_string().into(),
            sub: Some(claims.sub.into()),
        }))
    }

    fn by_ticket(
        &self,
        ticket: &str,
        presented: &Presented<'_>,
        now: Timestamp,
    ) -> Result<Identity, Refusal> {
        let key = self.tickets.get().ok_or(Refusal::TicketsUnavailable)?;
        let grant = key.check(ticket, presented.origin, presented.fetch_site, now)?;
        // The ticket may be older than the last change of the configuration.
        if self.tenants_required && grant.tenant.is_none() {
            return Err(Cause::NoTenant.into());
        }
        let own = Topic::own(&grant.sub, grant.tenant.as_deref()).map_err(|_| Cause::BadClaim)?;
        let read = grant.topics.iter().map(|text| Pattern::parse(text));
        Ok(Identity::new(Caller {
            credential: Credential::Ticket,
            own: Some(own),
            read: read
                .collect::<Result<_, _>>()
                .map_err(|_| Cause::BadClaim)?,
            publish: Vec::new(),
            public: self.public.clone(),
            expires_at: Timestamp::from_second(grant.expires_at).ok(),
            claims: serde_json::json!({ "sub": grant.sub }).to_string().into(),
            tenant: grant.tenant.map(Box::from),
            sub: Some(grant.sub.into()),
        }))
    }
}

impl AuthSettings {
    /// Everything that is wrong with these settings, in the operator's words.
    fn faults(&self) -> Vec<String> {
        [self.key_faults(), self.name_faults()].concat()
    }

    /// What is wrong with the keys, given the other settings.
    pub(crate) fn key_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match &self.keys {
            None if self.public_topics.is_empty() => faults.push(
                "nobody could read anything: set TIDINGS_JWT_SECRET, TIDINGS_JWT_PUBLIC_KEY or \
                 TIDINGS_JWT_JWKS_FILE, or TIDINGS_PUBLIC_TOPICS"
                    .into(),
            ),
            Some(keys) if keys.are_public() && self.audience.is_none() => faults.push(
                "TIDINGS_JWT_AUDIENCE is required with public keys: without it every token of \
                 the issuer, for whatever service, would be accepted here"
                    .into(),
            ),
            _ => {}
        }
        faults
    }

    /// What is wrong with the names of claims and cookie.
    pub(crate) fn name_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let pointers = [
            &self.claims.topics,
            &self.claims.publish,
            &self.claims.tenant,
        ];
        for pointer in pointers
            .into_iter()
            .filter(|pointer| !pointer.starts_with('/'))
        {
            faults.push(format!(
                "{pointer:?} is no JSON pointer to a claim: it begins with a slash, like /topics"
            ));
        }
        let in_name = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if let Some(name) = &self.cookie
            && (name.is_empty() || !name.bytes().all(in_name))
        {
            faults.push(format!("{name:?} cannot be the name of a cookie"));
        }
        faults
    }
}

/// The patterns of a claim: a list of texts, or one text.
fn patterns(claim: Option<&Value>) -> Result<Vec<Pattern>, Cause> {
    let pattern = |value: &Value| {
        let text = value.as_str().ok_or(Cause::BadClaim)?;
        Pattern::parse(text).map_err(|_| Cause::BadClaim)
    };
    match claim {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(pattern).collect(),
        Some(one) => Ok(vec![pattern(one)?]),
    }
}

/// Why a request has no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 401: there is no credential, or it is no good. The answer is the same for every cause.
    #[error("no valid credential: {0}")]
    Unauthorized(#[from] Cause),
    /// 403: the credential may not be used like this.
    #[error("{0}")]
    Forbidden(Forbidden),
    /// 400: a raw token in the URL, where it does not belong.
    #[error("a token stands in the URL")]
    TokenInUrl,
    /// The key of tickets has not been read yet, because the database is away: not the caller's
    /// fault.
    #[error("the database has not told the key of tickets yet")]
    TicketsUnavailable,
}

/// Why a credential may not be used for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The page that makes a browser send the cookie is not one of the allowed origins.
    #[error("the cookie came from a page whose origin is not allowed")]
    CookieOrigin,
    /// A cookie serves GET only.
    #[error("a cookie serves GET only")]
    CookieMethod,
}

/// Why a credential is no good, for the operator's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// There is none.
    #[error("there is none")]
    Missing,
    /// There are two that contradict each other.
    #[error("two cookies of the same name contradict each other")]
    Ambiguous,
    /// Longer than any that is accepted.
    #[error("it is too long")]
    TooLong,
    /// Not in the form of its kind.
    #[error("it is malformed")]
    Malformed,
    /// Signed with a key that is not here.
    #[error("its key is unknown")]
    UnknownKey,
    /// Another algorithm than the key's.
    #[error("its algorithm is not that of the key")]
    WrongAlgorithm,
    /// Without `exp`, or without a usable `sub`.
    #[error("it lacks exp or sub")]
    Incomplete,
    /// Past its end.
    #[error("it has expired")]
    Expired,
    /// Before its beginning.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Not signed by the key.
    #[error("its signature is wrong")]
    WrongSignature,
    /// Meant for another service.
    #[error("it is for another audience")]
    WrongAudience,
    /// From another issuer.
    #[error("it is from another issuer")]
    WrongIssuer,
    /// A ticket of another page.
    #[error("it belongs to a page of another origin")]
    WrongOrigin,
    /// Without the tenant that is required here.
    #[error("it names no tenant")]
    NoTenant,
    /// With a claim of tidings that cannot be read.
    #[error("its topics, publish, tenant or sub cannot be used")]
    BadClaim,
}
